"""A reader that takes nothing for a while frees what it holds; one that reads slowly is not cut."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from mesh.calls.shares import Shares
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person
from tests.integration.mesh.rpc import credentials_of
from tests.support import eventually

# More than all windows and buffers on the way hold: its reader is felt. It takes 7 seconds.
PIECE, COUNT = "word " * 4_000, 140
LARGE = Script(pieces=(PIECE,) * COUNT, pause=0.05)


@dataclass
class Serving:
    """Another chat, and a channel to it that takes no more ahead than the edge does."""

    shares: Shares
    channel: grpc.aio.Channel


@asynccontextmanager
async def serving(mesh: harness.Mesh, timeout: str) -> AsyncIterator[Serving]:
    """Another chat, which gives readers up after so many seconds."""
    settings = {**mesh.settings, "READER_TIMEOUT": timeout}
    options = [
        ("grpc.ssl_target_name_override", "chat.khesht.internal"),
        ("grpc.http2.lookahead_bytes", 65_536),
        ("grpc.http2.bdp_probe", 0),
    ]
    async with (
        harness.replica(replace(mesh, settings=settings), "chat") as second,
        grpc.aio.secure_channel(
            second.addresses["chat"], credentials_of(mesh, "edge"), options=options
        ) as channel,
    ):
        yield Serving(second.servers["chat"].shares, channel)


@pytest.fixture
async def impatient(mesh: harness.Mesh):
    async with serving(mesh, "1") as second:
        yield second


async def streamed(serving: Serving, person: Person, **more: object):
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, store=False, **more)
    stub = pb_grpc.ChatServiceStub(serving.channel)
    return stub.StreamReply(request, timeout=120, metadata=person.by_key)


async def plain(serving: Serving, person: Person, **more: object):
    request = pb.StreamTextRequest(user_message="Hi", model=MODEL, **more)
    stub = pb_grpc.ChatServiceStub(serving.channel)
    return stub.StreamText(request, timeout=120, metadata=person.by_key)


async def completion(serving: Serving, person: Person, **more: object):
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    request = completions_pb.CreateChatCompletionRequest()
    request.body.data = json.dumps({**asked, **more}).encode()
    stub = completions_grpc.CompletionsServiceStub(serving.channel)
    return stub.CreateChatCompletion(request, timeout=120, metadata=person.by_key)


SURFACES = [streamed, plain, completion]


@pytest.fixture
async def stored(mesh: harness.Mesh, person: Person):
    """Asks for the person's one generation until it has ended."""
    stub = generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))

    async def ended(within: float = 20) -> generations_pb.Generation:
        async def found() -> generations_pb.Generation | None:
            request = generations_pb.ListGenerationsRequest()
            listed = await stub.ListGenerations(request, timeout=5, metadata=person.by_key)
            return next((each for each in listed.generations if each.status != "running"), None)

        return await eventually(found, within)

    return ended


@pytest.mark.parametrize("surface", SURFACES)
async def test_a_reader_that_takes_nothing_ends_its_generation(
    impatient: Serving, person: Person, provider: FakeOpenAI, stored, records, surface
):
    provider.script = LARGE
    stream = await surface(impatient, person)
    await anext(aiter(stream))
    ended = await stored()
    assert (ended.status, ended.reason) == ("cancelled", "CLIENT_LEFT")
    await eventually(lambda: provider.requests[0].closed_at)
    await eventually(lambda: not impatient.shares.in_flight)
    (record,) = await records(1)
    assert record.status == "cancelled"
    stream.cancel()


async def test_a_generation_that_is_to_finish_goes_on_without_its_reader(
    impatient: Serving, person: Person, provider: FakeOpenAI, stored
):
    provider.script = LARGE
    stream = await streamed(impatient, person, on_disconnect="finish")
    await anext(aiter(stream))
    await eventually(lambda: not impatient.shares.in_flight, within=20)
    assert (await stored()).status == "completed"
    stream.cancel()


async def test_a_follower_that_takes_nothing_is_given_up_and_the_generation_goes_on(
    impatient: Serving, person: Person, provider: FakeOpenAI
):
    provider.script = LARGE
    stream = await streamed(impatient, person)
    events = aiter(stream)
    first = await anext(events)
    stub = generations_grpc.GenerationsServiceStub(impatient.channel)
    request = generations_pb.FollowGenerationRequest(generation_id=first.generation_id)
    follower = stub.FollowGeneration(request, timeout=120, metadata=person.by_key)
    await anext(aiter(follower))
    shares = impatient.shares
    assert shares.in_flight == 2

    async def read_on() -> None:
        async for _ in events:
            pass

    reading = asyncio.create_task(read_on())
    await eventually(lambda: shares.in_flight == 1, within=20)
    assert provider.requests[0].closed_at is None
    for each in (follower, stream):
        each.cancel()
    with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await reading


async def test_a_reader_that_reads_slowly_is_not_cut(
    impatient: Serving, person: Person, provider: FakeOpenAI
):
    provider.script = replace(LARGE, pause=0.01)
    read = events = 0
    async for event in await streamed(impatient, person):
        read, events = read + len(event.token), events + 1
        if events < 25:
            await asyncio.sleep(0.2)  # Its pace is what is tested.
    assert event.done
    assert read == COUNT * len(PIECE)


async def test_with_more_patience_a_reader_that_takes_nothing_stays(
    mesh: harness.Mesh, person: Person, provider: FakeOpenAI
):
    provider.script = LARGE
    async with serving(mesh, "60") as patient:
        stream = await streamed(patient, person)
        await anext(aiter(stream))
        # Three seconds and more: who has one second of patience has given it up by then.
        await eventually(lambda: provider.requests[0].sent > COUNT // 2)
        assert provider.requests[0].closed_at is None
        assert patient.shares.in_flight == 1
        stream.cancel()
