"""Chat is stopped while it streams: the stream ends in itself, and is accounted for."""

import asyncio

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import status
from mesh.server import Server
from services.chat.commands.runner import Runner
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.harness import Mesh
from tests.integration.conftest import Person
from tests.support import eventually

# Of it, streams get the last two seconds to end: they are told at once.
GRACE = 2.0


async def stop_while_streaming(
    mesh: Mesh, person: Person, provider: FakeOpenAI
) -> tuple[list[pb.StreamReplyResponse], grpc.aio.AioRpcError]:
    """The events of a stream whose server is stopped after the first, and its status."""
    provider.script = Script(pieces=("word ",) * 500, pause=0.02)
    events: list[pb.StreamReplyResponse] = []
    async with harness.replica(mesh, "chat") as replica:
        chat = pb_grpc.ChatServiceStub(await replica.channel("chat"))
        request = pb.StreamReplyRequest(message="Go on", model="gpt-4o-mini")
        stream = chat.StreamReply(request, timeout=30, metadata=person.by_key)

        async def read() -> None:
            async for event in stream:
                events.append(event)

        reading = asyncio.create_task(read())
        await eventually(lambda: events)
        await replica.servers["chat"].stop(lame_duck=0, grace=GRACE)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await reading
    return events, failed.value


async def test_a_stream_is_told_that_the_server_stops_and_is_charged(
    mesh: Mesh, person: Person, provider: FakeOpenAI
):
    events, failed = await stop_while_streaming(mesh, person, provider)
    assert {event.WhichOneof("event") for event in events[:-1]} == {"token"}
    last = events[-1].error
    assert (last.code, last.reason) == (503, "DRAINING")
    assert (failed.code(), status.reason_of(failed)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    (asked,) = provider.requests
    assert asked.closed_at is not None
    assert asked.sent < 500
    usage = usage_grpc.UsageServiceStub(await mesh.channel("usage"))

    async def records() -> list[usage_pb.UsageRecord]:
        listed = await usage.ListUsage(
            usage_pb.ListUsageRequest(), timeout=5, metadata=person.by_token
        )
        return list(listed.records)

    (record,) = await eventually(records)
    assert (record.status, record.basis) == ("failed", "estimated")
    assert 1 <= record.completion_tokens <= asked.sent
    chat = pb_grpc.ChatServiceStub(await mesh.channel("chat"))
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_key)
    kept = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=chats.chats[0].id), timeout=5, metadata=person.by_key
    )
    text = "".join(event.token for event in events)
    assert [(m.content, m.finish_reason) for m in kept.messages] == [("Go on", ""), (text, "error")]


async def test_without_a_word_to_runners_a_stream_is_cut(
    mesh: Mesh, person: Person, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Runner, "drain", lambda self: None)
    events, failed = await stop_while_streaming(mesh, person, provider)
    assert {event.WhichOneof("event") for event in events} == {"token"}
    assert status.reason_of(failed) != "DRAINING"


async def stop_after_its_reader_left(
    mesh: Mesh, person: Person, provider: FakeOpenAI
) -> generations_pb.Generation:
    """What becomes of a generation that is to finish, by a server that is stopped meanwhile."""
    provider.script = Script(pieces=("word ",) * 50, pause=0.02)
    async with harness.replica(mesh, "chat") as replica:
        chat = pb_grpc.ChatServiceStub(await replica.channel("chat"))
        request = pb.StreamReplyRequest(
            message="Go on", model="gpt-4o-mini", on_disconnect="finish"
        )
        stream = chat.StreamReply(request, timeout=30, metadata=person.by_key)
        first = await anext(aiter(stream))
        stream.cancel()
        await replica.servers["chat"].stop(lame_duck=0, grace=20)
    stub = generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))
    wanted = generations_pb.GetGenerationRequest(generation_id=first.generation_id)
    return await stub.GetGeneration(wanted, timeout=5, metadata=person.by_key)


async def test_what_is_to_finish_is_finished_before_the_server_leaves(
    mesh: Mesh, person: Person, provider: FakeOpenAI
):
    made = await stop_after_its_reader_left(mesh, person, provider)
    assert (made.status, made.text) == ("completed", "word " * 50)


async def test_without_waiting_for_it_it_is_broken_off(
    mesh: Mesh, person: Person, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Server, "_end_of_rest", lambda self, within: asyncio.sleep(0))
    made = await stop_after_its_reader_left(mesh, person, provider)
    assert (made.status, made.reason) == ("failed", "DRAINING")
