"""A mesh whose operator listed a provider, and models that stand in for others."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import health_service_pb2 as health_pb
from khesht.chat.v1 import health_service_pb2_grpc as health_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import status
from tests import harness
from tests.fake_openai import FakeOpenAI, Script, models_file
from tests.integration.chat.streams import events_of, text_of
from tests.integration.conftest import Person, new_person
from tests.support import eventually

LISTED = """
[[models]]
id = "mine"
provider = "mine"
upstream = "vendor/mine-8b"
fallback = ["gpt-4o"]
max_output_tokens = 500
prompt_price = "1"
completion_price = "2"

[providers.mine]
url = "{url}"
key_env = "MINE_API_KEY"
key_prefix = "mk-"
retries = 0
breaker_failures = 2
breaker_pause = 1
"""


@pytest.fixture(scope="module")
async def own_server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI().serving() as fake:
        yield fake


@pytest.fixture
def mine(own_server: FakeOpenAI) -> FakeOpenAI:
    """The listed provider."""
    own_server.script = Script(pieces=("of ", "mine"), model="")
    own_server.requests.clear()
    return own_server


@pytest.fixture(scope="module")
async def mesh(
    admin_dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
    provider_server: FakeOpenAI,
    own_server: FakeOpenAI,
) -> AsyncIterator[harness.Mesh]:
    folder: Path = tmp_path_factory.mktemp("listed")
    settings = {
        "OPENAI_API_KEY": "sk-the-operators",
        "OPENAI_BASE_URL": provider_server.url,
        "MINE_API_KEY": "mk-the-operators",
        "MODELS_FILE": models_file(folder, LISTED.format(url=own_server.url)),
        "RATE_LIMIT_PER_MINUTE": "1000",
    }
    services = ("auth", "keys", "usage", "chat")
    own = harness.new_database(admin_dsn, "of_a_mesh_with_a_list")
    async with harness.running_mesh(own, folder, *services, settings=settings) as running:
        yield running


async def asked(chat: pb_grpc.ChatServiceStub, person: Person) -> pb.CreateReplyResponse:
    request = pb.CreateReplyRequest(message="12345678", model="mine")
    reply: pb.CreateReplyResponse = await chat.CreateReply(
        request, timeout=5, metadata=person.by_key
    )
    return reply


async def newest(mesh: harness.Mesh, person: Person, count: int = 1) -> usage_pb.UsageRecord:
    usage = usage_grpc.UsageServiceStub(await mesh.channel("usage"))

    async def found() -> usage_pb.UsageRecord | None:
        request = usage_pb.ListUsageRequest()
        listed = await usage.ListUsage(request, timeout=5, metadata=person.by_token)
        return listed.records[0] if len(listed.records) == count else None

    return await eventually(found)


async def test_it_is_called_by_its_own_key_and_name(chat, person: Person, mine, provider):
    reply = await asked(chat, person)
    assert reply.message == "of mine"
    (request,) = mine.requests
    assert request.headers["Authorization"] == "Bearer mk-the-operators"
    assert (request.body["model"], request.body["max_tokens"]) == ("vendor/mine-8b", 500)
    assert not provider.requests


async def test_the_record_names_who_answered_at_its_prices(
    mesh: harness.Mesh, chat, person: Person, mine, provider: FakeOpenAI
):
    await asked(chat, person)
    record = await newest(mesh, person)
    assert (record.model, record.provider) == ("mine", "mine")
    assert record.cost_usd == pytest.approx(25 * 1e-6 + 150 * 2e-6)
    mine.script = Script(status=500)
    provider.script = Script(model="gpt-4o-2024-11-20", tokens=(10, 20))
    stream = chat.StreamReply(
        pb.StreamReplyRequest(message="Hi", model="mine"), timeout=5, metadata=person.by_key
    )
    events = await events_of(stream)
    assert (text_of(events), events[-1].model) == ("Hello, world!", "gpt-4o-2024-11-20")
    record = await newest(mesh, person, 2)
    assert (record.model, record.provider, record.status) == ("gpt-4o", "openai", "completed")
    assert record.cost_usd == pytest.approx(10 * 2.5e-6 + 20 * 10e-6)


@pytest.mark.parametrize(("allowed", "made"), [("gpt-4o-mini", 0), ("gpt-4o", 1)])
async def test_no_model_stands_in_that_the_key_may_not_call(
    mesh: harness.Mesh, chat, mine, provider: FakeOpenAI, allowed: str, made: int
):
    person = await new_person(mesh)
    keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
    request = keys_pb.UpdateApiKeyRequest(key_id=person.key_id, allowed_models=["mine", allowed])
    request.update_mask.paths.append("allowed_models")
    await keys.UpdateApiKey(request, metadata=person.by_token, timeout=5)
    await asked(chat, person)  # So that its breaker begins anew, and after it.
    mine.first[:] = [Script(status=500)]
    with contextlib.nullcontext() if made else pytest.raises(grpc.aio.AioRpcError, match="mine"):
        await asked(chat, person)
    assert len(provider.requests) == made
    await asked(chat, person)


async def test_one_that_is_left_alone_is_named_and_the_mesh_is_well(
    mesh: harness.Mesh, chat, person: Person, mine, provider: FakeOpenAI
):
    health = health_grpc.HealthServiceStub(await mesh.channel("chat"))
    await mesh.start("items")

    async def providers() -> dict[str, str]:
        told = await health.GetHealth(health_pb.GetHealthRequest(), timeout=5)
        assert told.status == "healthy"
        return dict(told.providers)

    well = {"echo": "healthy", "mine": "configured", "openai": "configured"}
    assert await providers() == well
    mine.script = Script(status=503)
    for _ in range(2):
        assert (await asked(chat, person)).message == "Hello, world!"
    assert await providers() == well | {"mine": "unavailable"}
    mine.script = Script()

    async def tried() -> bool:
        await asked(chat, person)
        return await providers() == well

    await eventually(tried)


async def test_what_reached_nobody_is_in_no_record(
    mesh: harness.Mesh, chat, person: Person, mine, provider: FakeOpenAI
):
    stranger, other = await new_person(mesh), await new_person(mesh)
    mine.script = provider.script = Script(status=503)
    for each in (person, other):  # It takes several accounts to keep another from it.
        with pytest.raises(grpc.aio.AioRpcError):
            await asked(chat, each)
    request = pb.CreateReplyRequest(message="Hi", model="mine", api_key="mk-the-callers")
    with pytest.raises(grpc.aio.AioRpcError, match="is not asked for now") as refused:
        await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert status.reason_of(refused.value) == "PROVIDER_UNAVAILABLE"
    provider.script = Script()
    request = pb.CreateReplyRequest(message="Hi", model="gpt-4o")
    await chat.CreateReply(request, timeout=5, metadata=stranger.by_key)
    assert (await newest(mesh, stranger)).model == "gpt-4o"
    failed = await newest(mesh, person)
    assert (failed.model, failed.status, failed.total_tokens) == ("mine", "failed", 0)
