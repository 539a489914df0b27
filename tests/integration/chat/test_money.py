"""Budgets as chat keeps them: what does not fit is not asked, and what grows too large is cut."""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import psycopg
import pytest

from cli.audit import audit
from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from khesht.usage.v1 import usage_internal_service_pb2 as internal_pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as internal_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import status
from mesh.identity.principal import Budget
from services.chat.commands.budget import Budgets, Spender
from services.chat.domain.conversation import Turn
from services.chat.domain.models import Catalog, Model
from services.chat.domain.provider import Prompt
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.test_frozen import opening_of
from tests.integration.conftest import Person, new_person
from tests.support import eventually

# A dollar a million tokens, read or written: a token is a millionth of a dollar.
MODELS = """
default = ["plain"]
[[models]]
id = "plain"
provider = "openai"
max_output_tokens = 20000
prompt_price = "1"
completion_price = "1"
[[models]]
id = "echo"
provider = "echo"
max_output_tokens = 20000
prompt_price = "0"
completion_price = "0"
"""
# Of one request here: "Hi" in a turn, as many tokens as it has bytes and 8 around, and 90 written.
PROMPT, REPLY = 10, 90


@asynccontextmanager
async def paying(
    admin_dsn: str, folder: Path, provider: FakeOpenAI, connections: int
) -> AsyncIterator[harness.Mesh]:
    """A mesh with a database of its own, whose one model has a price; its books are right after."""
    models = folder / "models.toml"
    models.write_text(MODELS)
    own = harness.new_database(admin_dsn, f"paid_{uuid.uuid4().hex[:8]}")
    settings = {
        "OPENAI_API_KEY": "sk-of-the-operator",
        "OPENAI_BASE_URL": provider.url,
        "MODELS_FILE": str(models),
        "RATE_LIMIT_PER_MINUTE": "100000",
        "DATABASE_CONNECTIONS": str(connections),
    }
    services = ("auth", "keys", "usage", "chat")
    async with harness.running_mesh(own, folder / "certs", *services, settings=settings) as mesh:
        yield mesh
        assert [line for _, lines in audit(own) for line in lines] == []


@pytest.fixture(scope="module")
async def paid(
    admin_dsn: str, tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[harness.Mesh]:
    folder: Path = tmp_path_factory.mktemp("paid")
    async with paying(admin_dsn, folder, provider_server, 10) as mesh:
        yield mesh


@pytest.fixture(scope="module", autouse=True)
async def admin(paid: harness.Mesh) -> Person:
    """Whoever is first in a database."""
    return await new_person(paid)


@pytest.fixture
async def chat(paid: harness.Mesh) -> pb_grpc.ChatServiceStub:
    return pb_grpc.ChatServiceStub(await paid.channel("chat"))


@pytest.fixture
async def usage(paid: harness.Mesh) -> usage_grpc.UsageServiceStub:
    return usage_grpc.UsageServiceStub(await paid.channel("usage"))


@pytest.fixture
async def spender(paid: harness.Mesh) -> Person:
    return await new_person(paid)


async def key_with(paid: harness.Mesh, person: Person, **limits: float):
    """The metadata of calls by a new key of such limits."""
    keys = keys_grpc.KeysServiceStub(await paid.channel("keys"))
    request = keys_pb.CreateApiKeyRequest(name="limited", rate_limit_per_minute=10_000, **limits)
    made = await keys.CreateApiKey(request, timeout=5, metadata=person.by_token)
    return harness.bearer(made.key)


def ask(**more: object) -> pb.CreateReplyRequest:
    return pb.CreateReplyRequest(message="Hi", store=False, max_tokens=REPLY, **more)


async def held(usage, person: Person) -> float:
    request = usage_pb.GetBudgetRequest()
    return (await usage.GetBudget(request, timeout=5, metadata=person.by_token)).held_usd


@pytest.mark.parametrize("connections", [1, 2, 50])
async def test_of_200_racing_requests_those_get_in_that_there_is_money_for(
    admin_dsn: str, tmp_path: Path, provider: FakeOpenAI, connections: int
):
    async with paying(admin_dsn, tmp_path, provider, connections) as mesh:
        usage = usage_grpc.UsageServiceStub(await mesh.channel("usage"))
        chat = pb_grpc.ChatServiceStub(await mesh.channel("chat"))
        await race(mesh, chat, usage, await new_person(mesh), provider)


async def race(paid: harness.Mesh, chat, usage, spender: Person, provider: FakeOpenAI) -> None:
    provider.script = Script(pieces=("word",), pause=1.0, tokens=(PROMPT, REPLY))
    by = await key_with(paid, spender, monthly_budget_usd=10 * (PROMPT + REPLY) / 1e6)
    outcomes = await asyncio.gather(
        *(chat.CreateReply(ask(), timeout=30, metadata=by) for _ in range(200)),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert len(provider.requests) == 10
    assert len(refused) == 190
    assert {status.reason_of(each) for each in refused} == {"BUDGET_EXCEEDED"}
    assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    # All is spent by now, for this month.
    with pytest.raises(grpc.aio.AioRpcError) as again:
        await eventually_recorded(usage, spender, 10)
        await chat.CreateReply(ask(), timeout=30, metadata=by)
    waits = dict(again.value.trailing_metadata() or ()).get("retry-after")
    assert waits is not None
    assert int(waits) > 0
    assert len(provider.requests) == 10
    assert await held(usage, spender) == 0


async def eventually_recorded(usage, person: Person, count: int) -> None:
    async def recorded() -> bool:
        request = usage_pb.ListUsageRequest()
        answer = await usage.ListUsage(request, timeout=5, metadata=person.by_token)
        return len(answer.records) >= count

    await eventually(recorded)


async def test_without_a_budget_all_of_them_get_in(
    paid: harness.Mesh, chat, spender: Person, provider: FakeOpenAI
):
    by = await key_with(paid, spender)
    await asyncio.gather(*(chat.CreateReply(ask(), timeout=30, metadata=by) for _ in range(30)))
    assert len(provider.requests) == 30


async def test_an_account_has_a_budget_over_all_of_its_keys(
    paid: harness.Mesh, chat, usage, admin: Person, provider: FakeOpenAI
):
    spender = await new_person(paid)
    provider.script = Script(pieces=("word",), tokens=(PROMPT, REPLY))
    cost = (PROMPT + REPLY) / 1e6
    request = usage_pb.ReplaceUserBudgetRequest(user_id=spender.id, total_budget_usd=3 * cost)
    await usage.ReplaceUserBudget(request, timeout=5, metadata=admin.by_token)
    first, second = await key_with(paid, spender), await key_with(paid, spender)
    for recorded, by in enumerate((first, second, first), start=1):
        await chat.CreateReply(ask(), timeout=30, metadata=by)
        await eventually_recorded(usage, spender, recorded)
    for by in (first, second, spender.by_token):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await chat.CreateReply(ask(), timeout=30, metadata=by)
        assert status.reason_of(refused.value) == "BUDGET_EXCEEDED"
        assert "account" in str(refused.value.details())
    assert len(provider.requests) == 3


async def test_a_provider_that_writes_too_much_is_cut(
    paid: harness.Mesh, chat, usage, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 2000, pause=0.002)
    by = await key_with(paid, spender, total_budget_usd=1)
    request = pb.StreamReplyRequest(message="Hi", store=False, max_tokens=REPLY)
    events = []
    with pytest.raises(grpc.aio.AioRpcError):
        async for event in chat.StreamReply(request, timeout=30, metadata=by):
            events.append(event)
    last = events[-1]
    assert last.error.reason == "PROVIDER_OVERRAN"
    assert last.usage.completion_tokens == REPLY  # What is past the limit is not charged.
    await eventually(lambda: provider.requests[0].closed_at)
    assert provider.requests[0].sent < 1000


async def test_a_reply_that_outgrows_its_budget_is_ended_with_an_event(
    paid: harness.Mesh, chat, usage, spender: Person, provider: FakeOpenAI
):
    # The provider goes on past the limit of 4,990 tokens that it is sent.
    provider.script = Script(pieces=("word ",) * 12_000)
    by = await key_with(paid, spender, total_budget_usd=5_000 / 1e6)
    request = pb.StreamReplyRequest(message="Hi", store=False)
    events = []
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for event in chat.StreamReply(request, timeout=30, metadata=by):
            events.append(event)
    assert status.reason_of(ended.value) == "BUDGET_EXCEEDED"
    assert events[-1].error.reason == "BUDGET_EXCEEDED"
    assert events[-1].usage.completion_tokens >= 4_096


async def test_a_crowd_waits_for_usage_that_hangs_no_longer_than_one_does(
    paid: harness.Mesh, chat, spender: Person, provider: FakeOpenAI
):
    loop = asyncio.get_running_loop()
    by = await key_with(paid, spender)
    await chat.CreateReply(ask(), timeout=5, metadata=by)
    forgotten = loop.time() + 1.1  # Then usage is asked again.
    await eventually(lambda: loop.time() > forgotten)
    async with await psycopg.AsyncConnection.connect(paid.admin_dsn) as connection:
        await connection.execute("LOCK TABLE usage.budgets")
        began = loop.time()
        await asyncio.gather(*(chat.CreateReply(ask(), timeout=60, metadata=by) for _ in range(10)))
        assert loop.time() - began < 8


async def test_a_repeat_needs_no_money(
    paid: harness.Mesh, chat, usage, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 20, pause=0.03, tokens=(PROMPT, REPLY))
    by = await key_with(paid, spender, total_budget_usd=(PROMPT + REPLY) / 1e6)
    request = ask(request_id="once")
    first = asyncio.ensure_future(chat.CreateReply(request, timeout=10, metadata=by))
    await eventually(lambda: provider.requests)
    # While the first holds all that there is, and when it has spent it.
    assert await chat.CreateReply(request, timeout=10, metadata=by) == await first
    await eventually_recorded(usage, spender, 1)
    assert await chat.CreateReply(request, timeout=10, metadata=by) == await first
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chat.CreateReply(ask(request_id="twice"), timeout=10, metadata=by)
    assert status.reason_of(refused.value) == "BUDGET_EXCEEDED"
    assert len(provider.requests) == 1


async def test_what_usage_has_missed_and_holds_again_is_renewed(
    paid: harness.Mesh, spender: Person
):
    usage = internal_grpc.UsageInternalServiceStub(await paid.channel("usage", "chat"))
    model = Model("plain", "openai", (), 20_000, 10**9, 10**9)
    budgets = Budgets(usage, Catalog([model], ["plain"], frozenset({"openai"})))
    user_id = uuid.UUID(spender.id)
    opening = replace(opening_of(user_id), model="plain")
    limited = Spender(user_id, None, Budget(monthly=10**12))
    prompt = Prompt("plain", (Turn("user", "Hi"),), 20_000, None)
    hold = await budgets.hold(opening, limited, model, prompt)
    assert hold is not None
    released = internal_pb.ReleaseHoldsRequest(generation_ids=[str(opening.id)])
    assert (await usage.ReleaseHolds(released, timeout=5)).released_count == 1
    await budgets.renew()
    await budgets.extend(hold)
    with psycopg.connect(paid.admin_dsn, autocommit=True) as connection:
        late = "UPDATE usage.holds SET expires_at = now() + interval '9 seconds'"
        connection.execute(late)
        await budgets.renew()
        lasts = "SELECT expires_at > now() + interval '30 seconds' FROM usage.holds"
        assert connection.execute(lasts).fetchall() == [(True,)]
    await budgets.release(hold)


async def test_a_soft_budget_warns_and_lets_go_on(
    paid: harness.Mesh, chat, spender: Person, provider: FakeOpenAI
):
    by = await key_with(paid, spender, soft_budget_usd=1 / 1e6)

    async def warning(metadata) -> str | None:
        call = chat.CreateReply(ask(), timeout=30, metadata=metadata)
        await call
        return dict(await call.initial_metadata()).get("x-khesht-warning")

    assert await warning(by) is None  # Nothing is spent yet, whatever is held.
    assert await eventually(lambda: warning(by)) == "soft-budget-exceeded"
    assert await warning(await key_with(paid, spender)) is None


async def test_who_calls_one_after_the_other_needs_no_money_for_two(
    paid: harness.Mesh, chat, spender: Person, provider: FakeOpenAI
):
    by = await key_with(paid, spender, total_budget_usd=1.5 * (PROMPT + REPLY) / 1e6)
    provider.script = Script(pieces=("fine",), tokens=(PROMPT, 1))
    for _ in range(3):
        assert (await chat.CreateReply(ask(), timeout=30, metadata=by)).message == "fine"


async def test_what_reaches_no_provider_gives_its_money_back(
    paid: harness.Mesh, chat, usage, spender: Person, provider: FakeOpenAI
):
    by = await key_with(paid, spender, total_budget_usd=1.5 * (PROMPT + REPLY) / 1e6)
    provider.script = Script(status=503)
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError):
            await chat.CreateReply(ask(), timeout=30, metadata=by)

    async def nothing_held() -> bool:
        return math.isclose(await held(usage, spender), 0)

    await eventually(nothing_held)
    provider.script = Script(pieces=("fine",), tokens=(PROMPT, 1))
    assert (await chat.CreateReply(ask(), timeout=30, metadata=by)).message == "fine"
