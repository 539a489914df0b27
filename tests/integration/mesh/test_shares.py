"""One account can't take all calls of a service, by whatever keys and methods; without the rule it can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from mesh import status
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Metadata, Person
from tests.support import eventually

CAPACITY = 24
SLOW = Script(pieces=("word ",) * 400, pause=0.05)


@pytest.fixture
def shares(mesh: harness.Mesh, monkeypatch: pytest.MonkeyPatch):
    found = mesh.servers["chat"].shares
    monkeypatch.setattr(found, "capacity", CAPACITY)
    return found


@pytest.fixture
async def chat(mesh: harness.Mesh) -> pb_grpc.ChatServiceStub:
    return pb_grpc.ChatServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def credentials(mesh: harness.Mesh, person: Person) -> list[Metadata]:
    """All that the person may call by: a token, and two keys."""
    keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
    request = keys_pb.CreateApiKeyRequest(name="other")
    made = await keys.CreateApiKey(request, timeout=5, metadata=person.by_token)
    return [person.by_token, person.by_key, harness.bearer(made.key)]


async def unary(chat: pb_grpc.ChatServiceStub, metadata: Metadata) -> None:
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, store=False)
    await chat.CreateReply(request, timeout=60, metadata=metadata)


async def streamed(chat: pb_grpc.ChatServiceStub, metadata: Metadata) -> None:
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, store=False)
    async for _ in chat.StreamReply(request, timeout=60, metadata=metadata):
        pass


@asynccontextmanager
async def flood(chat, credentials: list[Metadata], call, at_once: int) -> AsyncIterator[list]:
    """So many calls by all of the `credentials`; gives what those came to that have ended."""
    refused: list[str] = []

    async def one(metadata: Metadata) -> None:
        try:
            await call(chat, metadata)
        except grpc.aio.AioRpcError as error:
            refused.append(status.reason_of(error))

    calls = [
        asyncio.create_task(one(credentials[number % len(credentials)]))
        for number in range(at_once)
    ]
    try:
        yield refused
    finally:
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def first_word(chat, person: Person) -> str:
    """The first word of a stream, which is left then. Raises what it is refused with."""
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, store=False)
    stream = chat.StreamReply(request, timeout=20, metadata=person.by_key)
    event = await anext(aiter(stream))
    stream.cancel()
    return str(event.token)


@pytest.mark.parametrize("call", [unary, streamed])
async def test_an_account_has_a_quarter_over_all_its_credentials_and_others_go_on(
    chat, shares, credentials, stranger: Person, provider: FakeOpenAI, call
):
    provider.script = SLOW
    async with flood(chat, credentials, call, CAPACITY) as refused:
        await eventually(lambda: len(refused) == CAPACITY * 3 // 4)
        assert set(refused) == {"OVERLOADED"}
        for _ in range(3):
            assert (await first_word(chat, stranger)).strip() == "word"


@pytest.mark.parametrize("call", [unary, streamed])
async def test_without_the_rule_an_account_has_all_and_others_are_refused(
    chat, shares, credentials, stranger: Person, provider: FakeOpenAI, call, monkeypatch
):
    monkeypatch.setattr(shares, "share", 1.0)
    provider.script = SLOW
    async with flood(chat, credentials, call, CAPACITY):
        await eventually(lambda: len(provider.requests) == CAPACITY)
        with pytest.raises(grpc.aio.AioRpcError) as shut_out:
            await first_word(chat, stranger)
        assert status.reason_of(shut_out.value) == "OVERLOADED"


async def test_what_is_refused_says_when_to_come_again(
    chat, shares, credentials, provider: FakeOpenAI
):
    provider.script = SLOW
    async with flood(chat, credentials, streamed, CAPACITY // 4):
        await eventually(lambda: len(provider.requests) == CAPACITY // 4)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(chat, credentials[0])
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert ("retry-after", "1") in list(refused.value.trailing_metadata() or ())


async def test_health_and_other_services_are_never_counted(
    mesh: harness.Mesh, chat, shares, credentials, provider: FakeOpenAI, monkeypatch
):
    monkeypatch.setattr(shares, "share", 1.0)
    provider.script = SLOW
    async with flood(chat, credentials, unary, CAPACITY):
        await eventually(lambda: len(provider.requests) == CAPACITY)
        channel = await mesh.channel("chat")
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert b"\x08\x01" in await check(b"", timeout=5)
