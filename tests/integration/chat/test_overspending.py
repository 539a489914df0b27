"""No budget is overspent, whatever providers do: held, limited, counted, cut and settled."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from cli.audit import audit
from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import status
from tests import harness, patience
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.test_money import key_with
from tests.integration.conftest import Person, new_person
from tests.support import eventually

# USD for a million tokens written; what is read costs a tenth.
PRICE = 10
MODELS = """
default = ["thinker"]
[[models]]
id = "thinker"
provider = "openai"
max_output_tokens = 16384
prompt_price = "1"
completion_price = "10"
[[models]]
id = "boundless"
provider = "openai"
max_output_tokens = 16384
prompt_price = "1"
completion_price = "10"
output_limit = "none"
[providers.openai]
breaker_failures = 1000
"""
STREAMED = {"thinker": {"model": "thinker", "stream": True}}


@pytest.fixture(scope="module")
async def spending(
    admin_dsn: str, tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[harness.Mesh]:
    folder: Path = tmp_path_factory.mktemp("spending")
    models = folder / "models.toml"
    models.write_text(MODELS)
    own = harness.new_database(admin_dsn, f"spent_{uuid.uuid4().hex[:8]}")
    settings = {
        "OPENAI_API_KEY": "sk-of-the-operator",
        "OPENAI_BASE_URL": provider_server.url,
        "MODELS_FILE": str(models),
        "RATE_LIMIT_PER_MINUTE": "100000",
    }
    services = ("auth", "keys", "usage", "chat")
    async with harness.running_mesh(own, folder / "certs", *services, settings=settings) as mesh:
        yield mesh
        assert [line for _, lines in audit(own) for line in lines] == []


@pytest.fixture(scope="module", autouse=True)
async def admin(spending: harness.Mesh) -> Person:
    """Whoever is first in a database."""
    return await new_person(spending)


@pytest.fixture
async def spender(spending: harness.Mesh) -> Person:
    return await new_person(spending)


@dataclass
class Callers:
    """Callers of a mesh, on any surface, by one key."""

    mesh: harness.Mesh
    person: Person
    by: tuple[tuple[str, str], ...]

    @classmethod
    async def with_budget(cls, mesh: harness.Mesh, person: Person, usd: float) -> "Callers":
        by = await key_with(mesh, person, total_budget_usd=usd)
        return cls(mesh, person, by)

    async def completion(self, **body: object) -> tuple[list[dict], dict[str, str]]:
        """The chunks, or the one answer, of OpenAI's format, and the headers."""
        stub = completions_grpc.CompletionsServiceStub(await self.mesh.channel("chat"))
        asked = {"messages": [{"role": "user", "content": "Hi"}], **body}
        data = json.dumps(asked).encode()
        request = completions_pb.CreateChatCompletionRequest(
            body=HttpBody(content_type="application/json", data=data)
        )
        call = stub.CreateChatCompletion(request, timeout=30, metadata=self.by)
        told = b"".join([piece.body.data async for piece in call]).decode()
        headers = dict(await call.initial_metadata())
        if not body.get("stream"):
            return [json.loads(told)], headers
        events = [each[6:] for each in told.split("\n\n") if each.startswith("data: ")]
        return [json.loads(each) for each in events if each != "[DONE]"], headers

    async def stream(self, **fields: object) -> pb.StreamReplyResponse:
        """The last event of a stream of ours; of one that failed too."""
        stub = pb_grpc.ChatServiceStub(await self.mesh.channel("chat"))
        request = pb.StreamReplyRequest(message="Hi", store=False, **fields)
        last = None
        try:
            async for event in stub.StreamReply(request, timeout=30, metadata=self.by):
                last = event
        except grpc.aio.AioRpcError:
            if last is None:
                raise
        assert last is not None
        return last

    async def records(self, count: int) -> list[usage_pb.UsageRecord]:
        """Their records, when there are so many."""
        stub = usage_grpc.UsageServiceStub(await self.mesh.channel("usage"))

        async def found() -> list[usage_pb.UsageRecord]:
            request = usage_pb.ListUsageRequest(page_size=200)
            listed = await stub.ListUsage(request, timeout=5, metadata=self.person.by_token)
            return list(listed.records) if len(listed.records) >= count else []

        return await eventually(found, 10) if count else []

    async def nothing_is_held(self) -> None:
        """Returns when no money is held for them."""
        stub = usage_grpc.UsageServiceStub(await self.mesh.channel("usage"))

        async def free() -> bool:
            request = usage_pb.GetBudgetRequest()
            return (
                await stub.GetBudget(request, timeout=5, metadata=self.person.by_token)
            ).held_usd == 0

        await eventually(free, 10)


def refusal(error: BaseException) -> str:
    assert isinstance(error, grpc.aio.AioRpcError), error
    return status.reason_of(error) or ""


async def test_hidden_thoughts_are_held_for_and_limited_to_what_is_left(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    # 16,000 tokens that are never shown, unless the limit that is sent is lower.
    provider.script = Script(pieces=("Yes.",), tokens=(10, 16_000), obeys=True)
    callers = await Callers.with_budget(spending, spender, 0.05)
    chunks, headers = await callers.completion(model="thinker", stream=True)
    (asked,) = provider.requests
    assert 4_980 <= asked.body["max_tokens"] < 5_000  # $0.05, but for what is read.
    assert headers["x-khesht-warning"] == "reply-limited-by-budget"
    assert [each["warning"] for each in chunks if "warning" in each] == ["reply-limited-by-budget"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    (record,) = await callers.records(1)
    assert (record.status, record.basis) == ("completed", "provider")
    assert 0.04 < record.cost_usd <= 0.05
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await callers.completion(model="thinker")
    assert refusal(refused.value) == "BUDGET_EXCEEDED"
    assert len(provider.requests) == 1


async def test_a_reply_of_ours_that_is_limited_says_so(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("Yes.",), tokens=(10, 16_000), obeys=True)
    callers = await Callers.with_budget(spending, spender, 0.05)
    last = await callers.stream()
    assert (last.done, last.finish_reason, last.warning) == (
        True,
        "length",
        "reply-limited-by-budget",
    )
    assert await callers.records(1)


async def test_with_money_enough_nothing_is_said_and_the_limit_is_the_model_s(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("Yes.",), tokens=(10, 16_000), obeys=True)
    callers = await Callers.with_budget(spending, spender, 1)
    chunks, headers = await callers.completion(model="thinker", stream=True)
    assert provider.requests[0].body["max_tokens"] == 16_384
    assert "x-khesht-warning" not in headers
    assert not [each for each in chunks if "warning" in each]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_key_without_a_budget_is_sent_on_as_it_came(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = Callers(spending, spender, spender.by_key)
    await callers.completion(model="thinker")
    assert "max_tokens" not in provider.requests[0].body


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (
            {"max_tokens": 16_384, "max_completion_tokens": 1},
            {"max_tokens": 4_999, "max_completion_tokens": 1},
        ),
        ({"max_completion_tokens": 9_000}, {"max_completion_tokens": 4_999}),
        ({"max_tokens": -1}, {"max_tokens": 4_999}),
        ({"max_tokens": "16384"}, {"max_tokens": 4_999}),
        ({"max_tokens": None, "n_predict": -1}, {"max_tokens": 4_999}),
        ({"n": 4}, {"max_tokens": 1_249}),
        ({"max_tokens": 100}, {"max_tokens": 100}),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_every_limit_that_is_sent_is_paid_for(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI, given, sent, streamed: bool
):
    callers = await Callers.with_budget(spending, spender, 0.05 + 0.0005)
    provider.script = Script(pieces=("Yes.",), tokens=(10, 1))
    await callers.completion(model="thinker", stream=streamed, **given)
    limits = ("max_tokens", "max_completion_tokens", "n_predict")
    told = {name: value for name, value in provider.requests[0].body.items() if name in limits}
    assert told.keys() == sent.keys()
    for name, value in sent.items():
        assert value - 100 <= told[name] <= value + 50
    assert await callers.records(1)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_provider_that_ignores_its_limit_costs_no_more_than_it(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI, streamed: bool
):
    callers = await Callers.with_budget(spending, spender, 0.05)
    provider.script = Script(pieces=("word " * 100,) * 72, tokens=(10, 7_200))
    body = {"model": "thinker", "max_tokens": 100, "stream": streamed}
    chunks, _ = await callers.completion(**body) if not streamed else ([], {})
    if streamed:
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await callers.completion(**body)
        assert refusal(cut.value) == "PROVIDER_OVERRAN"
    else:
        assert len(chunks[0]["choices"][0]["message"]["content"]) == 36_000
    (record,) = await callers.records(1)
    assert record.completion_tokens == 100
    assert record.basis == ("estimated" if streamed else "capped")


async def test_what_a_provider_counts_is_capped_and_marked(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = await Callers.with_budget(spending, spender, 0.05)
    provider.script = Script(pieces=("Yes.",), tokens=(500_000_000, 500_000_000))
    last = await callers.stream(max_tokens=50)
    assert last.done
    (record,) = await callers.records(1)
    assert (record.status, record.basis, record.completion_tokens) == ("completed", "capped", 50)
    assert record.cost_usd <= 0.05


async def test_a_model_that_takes_no_limit_is_held_for_as_it_writes(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = await Callers.with_budget(spending, spender, 0.06)
    provider.script = Script(pieces=("word " * 10,) * 1_200, pause=0.001)
    last = await callers.stream(model="boundless")
    assert "max_tokens" not in provider.requests[0].body
    assert last.error.reason == "BUDGET_EXCEEDED"
    (record,) = await callers.records(1)
    assert 4_096 <= record.completion_tokens <= 4_096 + 200
    assert record.cost_usd <= 0.06


async def test_eight_at_once_share_what_there_is(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("Yes.",), first_after=0.5, tokens=(10, 16_000), obeys=True)
    callers = await Callers.with_budget(spending, spender, 0.5)
    outcomes = await asyncio.gather(
        *(callers.completion(model="thinker", stream=True) for _ in range(8)),
        return_exceptions=True,
    )
    refused = [refusal(each) for each in outcomes if isinstance(each, BaseException)]
    assert refused == ["BUDGET_EXCEEDED"] * 4  # Three and a part are paid for.
    records = await callers.records(4)
    assert len(records) == 4
    assert sum(record.cost_usd for record in records) <= 0.5


async def test_who_calls_one_after_the_other_needs_no_more_than_is_left(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = await Callers.with_budget(spending, spender, 0.05)
    provider.script = Script(pieces=("fine",), tokens=(9, 1))
    for _ in range(5):  # Each may cost 0.16, and holds all that there is.
        (answer,), headers = await callers.completion(model="thinker")
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert headers["x-khesht-warning"] == "reply-limited-by-budget"
    assert len(await callers.records(5)) == 5


async def test_a_task_that_is_begun_anew_pays_for_all_tries_from_one_budget(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = await Callers.with_budget(spending, spender, 0.02)
    tasks = tasks_grpc.TasksServiceStub(await spending.channel("chat"))
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    async with harness.replica(spending, "worker") as first:
        request = tasks_pb.CreateTaskRequest(message="Hi", model="thinker")
        taken = await tasks.CreateTask(request, timeout=5, metadata=callers.by)
        await eventually(lambda: provider.requests and provider.requests[0].sent > 100)
        await first.servers["worker"].stop(lame_duck=0, grace=0)
    provider.script = Script(pieces=("word ",) * 4000, tokens=(9, 4000), obeys=True)
    async with harness.replica(spending, "worker"):
        (record,) = await callers.records(1)
    assert (record.generation_id, record.status, record.basis) == (
        taken.task_id,
        "completed",
        "crash",
    )
    assert 0.019 < record.cost_usd <= 0.02


async def test_a_limit_that_is_none_may_be_one_to_the_provider_and_is_charged(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("Yes.",), tokens=(10, 900))
    callers = Callers(spending, spender, spender.by_key)
    await callers.completion(model="thinker", max_tokens="900", max_completion_tokens=1)
    (record,) = await callers.records(1)
    assert (record.basis, record.completion_tokens) == ("provider", 900)


async def test_a_limit_that_is_not_sent_is_not_held_for(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    callers = await Callers.with_budget(spending, spender, 0.05)
    provider.script = Script(pieces=("Yes.",), tokens=(10, 1))
    limits = {"max_tokens": "900", "max_completion_tokens": 100}
    _, headers = await callers.completion(model="thinker", **limits)
    assert provider.requests[0].body["max_completion_tokens"] == 100
    assert "x-khesht-warning" not in headers


async def set_budget(mesh: harness.Mesh, admin: Person, person: Person, usd: float) -> None:
    stub = usage_grpc.UsageServiceStub(await mesh.channel("usage"))
    request = usage_pb.ReplaceUserBudgetRequest(user_id=person.id, total_budget_usd=usd)
    await stub.ReplaceUserBudget(request, timeout=5, metadata=admin.by_token)


SLOW = Script(pieces=("word ",) * 1_000, pause=0.02)


async def running(callers: Callers, provider: FakeOpenAI, count: int) -> list[asyncio.Task]:
    """So many streams of 1,000 tokens each, begun one after the other."""
    streams = []
    for _ in range(count):
        before = len(provider.requests)
        streams.append(asyncio.create_task(callers.stream(max_tokens=1_000)))
        await eventually(lambda before=before: len(provider.requests) > before)
    return streams


async def over(streams: list[asyncio.Task]) -> list[str]:
    """The reasons of the streams that have ended."""
    return [stream.result().error.reason for stream in streams if stream.done()]


async def test_a_lowered_budget_ends_the_newest_of_what_runs(
    spending: harness.Mesh, admin: Person, spender: Person, provider: FakeOpenAI
):
    provider.script = SLOW
    await set_budget(spending, admin, spender, 1)
    callers = Callers(spending, spender, spender.by_key)
    streams = await running(callers, provider, 3)  # A cent each.
    lowered_at = time.monotonic()
    await set_budget(spending, admin, spender, 0.021)
    await eventually(lambda: streams[2].done())
    assert not patience.is_over(time.monotonic() - lowered_at, 2.0)
    assert await over(streams) == ["BUDGET_EXCEEDED"]
    await eventually(lambda: provider.requests[2].closed_at)
    await set_budget(spending, admin, spender, 0)
    await eventually(lambda: all(stream.done() for stream in streams))
    assert await over(streams) == ["BUDGET_EXCEEDED"] * 3
    records = await callers.records(3)
    assert len(records) == 3
    await callers.nothing_is_held()


async def test_a_budget_that_is_set_holds_for_what_runs(
    spending: harness.Mesh, admin: Person, spender: Person, provider: FakeOpenAI
):
    provider.script = SLOW
    callers = Callers(spending, spender, spender.by_key)
    (stream,) = await running(callers, provider, 1)
    await set_budget(spending, admin, spender, 0.001)
    await eventually(stream.done)
    assert await over([stream]) == ["BUDGET_EXCEEDED"]
    assert await callers.records(1)


async def test_a_lowered_budget_of_a_key_ends_what_runs_by_it_alone(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI
):
    provider.script = SLOW
    keys = keys_grpc.KeysServiceStub(await spending.channel("keys"))
    made = await keys.CreateApiKey(
        keys_pb.CreateApiKeyRequest(name="lowered", total_budget_usd=1),
        timeout=5,
        metadata=spender.by_token,
    )
    callers = Callers(spending, spender, harness.bearer(made.key))
    others = await Callers.with_budget(spending, spender, 1)
    (stream,) = await running(callers, provider, 1)
    (other,) = await running(others, provider, 1)
    request = keys_pb.UpdateApiKeyRequest(key_id=made.id, total_budget_usd=0.001)
    request.update_mask.paths.append("total_budget_usd")
    await keys.UpdateApiKey(request, timeout=5, metadata=spender.by_token)
    await eventually(stream.done)
    assert await over([stream]) == ["BUDGET_EXCEEDED"]
    assert not other.done()
    other.cancel()


async def test_a_budget_that_is_not_lowered_ends_nothing(
    spending: harness.Mesh, admin: Person, spender: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 150, pause=0.02)
    await set_budget(spending, admin, spender, 0.04)
    callers = Callers(spending, spender, spender.by_key)
    streams = await running(callers, provider, 3)
    await set_budget(spending, admin, spender, 0.035)
    assert [(await stream).done for stream in streams] == [True] * 3


def random_script(dice: random.Random) -> Script:
    """A provider that cuts, thinks, counts and obeys as it likes, or not."""
    words = dice.choice([0, 1, 30, 400, 3_000])
    text = "".join(dice.choice(["word ", "Wörter ", "字", "  ", "{}"]) for _ in range(words))
    size = dice.choice([1, 7, 100, 5_000])
    pieces = tuple(text[at : at + size] for at in range(0, len(text), size))[:600]
    end = dice.choice(
        [End.WHOLE, End.WHOLE, End.WITHOUT_USAGE, End.CUT, End.EARLY, End.WITHOUT_DONE]
    )
    tokens = (10, dice.choice([words, words * 2, 16_000]))
    return Script(pieces=pieces, end=end, tokens=tokens, obeys=dice.random() < 0.7)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_providers_do_no_budget_is_overspent_and_no_good_reply_fails(
    spending: harness.Mesh, spender: Person, provider: FakeOpenAI, seed: int
):
    dice = random.Random(seed)
    budget = dice.choice([0.002, 0.02, 0.2, 2.0])
    callers = await Callers.with_budget(spending, spender, budget)
    scripts = [random_script(dice) for _ in range(8)]
    provider.first = list(scripts)

    async def ask(at: int) -> str:
        surface = dice.choice(["stream", "openai", "whole"])
        limit = dice.choice([{}, {"max_tokens": dice.choice([3, 50, 2_000])}])
        try:
            if surface == "stream":
                last = await callers.stream(**limit)
                return "done" if last.done else last.error.reason
            await callers.completion(model="thinker", stream=surface == "openai", **limit)
            return "done"
        except grpc.aio.AioRpcError as error:
            return refusal(error)

    outcomes = await asyncio.gather(*(ask(at) for at in range(8)))
    assert set(outcomes) <= {"done", "BUDGET_EXCEEDED", "PROVIDER_OVERRAN", "PROVIDER_BROKE_OFF"}
    asked = len(provider.requests)
    records = await callers.records(asked) if asked else []
    assert len(records) == asked == len({record.generation_id for record in records})
    assert sum(record.cost_usd for record in records) <= budget + 1e-9
    overran = outcomes.count("PROVIDER_OVERRAN")
    assert overran <= sum(not script.obeys for script in scripts)
    await callers.nothing_is_held()
