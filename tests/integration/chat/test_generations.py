"""A generation is a resource: read, followed from any place, cancelled, from any replica."""

import asyncio
import contextlib
import random
import time

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from mesh import status
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL, events_of, text_of
from tests.integration.conftest import Person
from tests.support import eventually

PIECES = tuple(f"w{number} " for number in range(300))


@pytest.fixture
async def generations(mesh: harness.Mesh) -> generations_grpc.GenerationsServiceStub:
    return generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))


@pytest.fixture(scope="module")
async def second(mesh: harness.Mesh):
    """Another replica of chat."""
    async with harness.replica(mesh, "chat") as other:
        yield other


@pytest.fixture
async def elsewhere(second: harness.Mesh) -> generations_grpc.GenerationsServiceStub:
    return generations_grpc.GenerationsServiceStub(await second.channel("chat"))


def follow(stub, person: Person, generation_id: str, after: int = 0):
    request = generations_pb.FollowGenerationRequest(generation_id=generation_id, after_seq=after)
    return stub.FollowGeneration(request, timeout=20, metadata=person.by_key)


async def begun(chat, person: Person, **more: object):
    """A running stream, its first event, and what is left of it."""
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, **more)
    stream = chat.StreamReply(request, timeout=30, metadata=person.by_key)
    events = aiter(stream)
    return stream, await anext(events), events


async def get(stub, person: Person, generation_id: str):
    request = generations_pb.GetGenerationRequest(generation_id=generation_id)
    return await stub.GetGeneration(request, timeout=5, metadata=person.by_key)


async def cancel(stub, person: Person, generation_id: str):
    request = generations_pb.CancelGenerationRequest(generation_id=generation_id)
    return await stub.CancelGeneration(request, timeout=10, metadata=person.by_key)


async def test_a_finished_generation_is_read_and_listed(
    chat, generations, person: Person, stranger: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("Hello", " there"), tokens=(3, 2))
    reply = await chat.CreateReply(
        pb.CreateReplyRequest(message="Hi", model=MODEL), timeout=5, metadata=person.by_key
    )
    made = await get(generations, person, reply.generation_id)
    assert (made.status, made.text, made.finish_reason) == ("completed", "Hello there", "stop")
    assert (made.usage.total_tokens, made.basis) == (5, "provider")
    assert (made.chat_id, made.key_id, made.provider) == (reply.chat_id, person.key_id, "openai")
    assert made.ended_at.ToDatetime() >= made.created_at.ToDatetime()
    listed = await generations.ListGenerations(
        generations_pb.ListGenerationsRequest(status="completed", chat_id=reply.chat_id),
        timeout=5,
        metadata=person.by_token,
    )
    assert [each.id for each in listed.generations] == [reply.generation_id]
    none = await generations.ListGenerations(
        generations_pb.ListGenerationsRequest(status="failed"), timeout=5, metadata=person.by_key
    )
    assert not none.generations
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(generations, stranger, reply.generation_id)
    assert status.reason_of(refused.value) == "GENERATION_NOT_FOUND"


async def test_cut_anywhere_and_resumed_anywhere_the_text_is_whole(
    chat, generations, elsewhere, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=PIECES, pause=0.003)
    uncut = "".join(PIECES)
    _, first, rest = await begun(chat, person, on_disconnect="finish")
    cuts = random.Random(7).sample(range(1, 300), 20)
    readers = [
        asyncio.create_task(resumed(stub, person, first.generation_id, cut))
        for cut in cuts
        for stub in (generations, elsewhere)
    ]
    whole = first.token + text_of([event async for event in rest])
    assert whole == uncut
    assert await asyncio.gather(*readers) == [uncut] * 40
    # And once it is over.
    for stub in (generations, elsewhere):
        assert await resumed(stub, person, first.generation_id, cuts[0]) == uncut


async def resumed(stub, person: Person, generation_id: str, cut: int) -> str:
    """The text as one gets it who leaves at event `cut` and comes again."""
    text, place, lasts = "", 0, 0
    for wanted in (cut, 10_000):
        async for event in follow(stub, person, generation_id, place):
            assert event.seq > place
            text, place = text + event.token, event.seq
            lasts += event.WhichOneof("event") == "done"
            if place >= wanted:
                break
    assert lasts == 1
    return text


@pytest.mark.parametrize(("header", "after", "text"), [("2", 0, "c"), ("0", 2, "abc")])
async def test_a_header_says_where_to_go_on_whatever_the_request_says(
    chat, generations, person: Person, provider: FakeOpenAI, header: str, after: int, text: str
):
    provider.script = Script(pieces=("a", "b", "c"), pause=0.03)
    _, first, rest = await begun(chat, person)
    await events_of(rest)
    request = generations_pb.FollowGenerationRequest(
        generation_id=first.generation_id, after_seq=after
    )
    metadata = (*person.by_key, ("last-event-id", header))
    events = await events_of(generations.FollowGeneration(request, timeout=5, metadata=metadata))
    assert text_of(events) == text
    assert events[-1].full_text == "abc"


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_cancelled_from_any_replica_the_provider_is_stopped_at_once(
    chat, generations, elsewhere, person: Person, provider: FakeOpenAI, records, where: str
):
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    _, first, rest = await begun(chat, person)
    asked = time.monotonic()
    stub = generations if where == "here" else elsewhere
    cancelling = asyncio.create_task(cancel(stub, person, first.generation_id))
    closed_at = await eventually(lambda: provider.requests[-1].closed_at)
    assert closed_at - asked < 0.25
    ended = await cancelling
    assert (ended.status, ended.reason, ended.basis) == (
        "cancelled",
        "GENERATION_CANCELLED",
        "estimated",
    )
    events = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for event in rest:
            events.append(event)
    assert [e.WhichOneof("event") for e in events][-1] == "cancelled"
    assert events[-1].full_text == ended.text
    (record,) = await records(1)
    assert (record.status, record.completion_tokens) == ("cancelled", ended.usage.completion_tokens)
    again = await cancel(stub, person, first.generation_id)
    assert again == ended


async def test_a_reader_may_leave_what_is_to_finish(
    chat, generations, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 30, pause=0.01)
    stream, first, _ = await begun(chat, person, on_disconnect="finish")
    stream.cancel()

    async def finished():
        made = await get(generations, person, first.generation_id)
        return made if made.status == "completed" else None

    made = await eventually(finished)
    assert made.text == "word " * 30
    assert (await records(1))[0].status == "completed"


async def test_without_that_leaving_ends_it(
    chat, generations, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    stream, first, _ = await begun(chat, person)
    stream.cancel()

    async def ended():
        made = await get(generations, person, first.generation_id)
        return made if made.status != "running" else None

    made = await eventually(ended)
    assert (made.status, made.reason) == ("cancelled", "CLIENT_LEFT")


async def test_one_account_can_not_take_all_streams(
    mesh: harness.Mesh,
    chat,
    generations,
    person: Person,
    stranger: Person,
    provider: FakeOpenAI,
    monkeypatch,
):
    monkeypatch.setattr(mesh.servers["chat"].shares, "capacity", 12)
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    running, first, _ = await begun(chat, person)
    follows = [follow(generations, person, first.generation_id) for _ in range(2)]
    for each in follows:
        await anext(aiter(each))
    with pytest.raises(grpc.aio.AioRpcError, match="3 calls of this caller") as refused:
        await anext(aiter(follow(generations, person, first.generation_id)))
    assert status.reason_of(refused.value) == "OVERLOADED"
    others, event, _ = await begun(chat, stranger)
    assert event.generation_id
    others.cancel()
    follows[0].cancel()

    async def admitted() -> bool:
        try:
            return bool(await anext(aiter(follow(generations, person, first.generation_id))))
        except grpc.aio.AioRpcError:
            return False

    assert await eventually(admitted)
    running.cancel()


async def test_racing_twins_make_one_call_and_get_one_answer(
    chat, second: harness.Mesh, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("one ", "answer"), pause=0.05)
    other = pb_grpc.ChatServiceStub(await second.channel("chat"))
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, request_id="a-1")
    answers = await asyncio.gather(
        *(
            stub.CreateReply(request, timeout=15, metadata=person.by_key)
            for _ in range(10)
            for stub in (chat, other)
        )
    )
    assert len(provider.requests) == 1
    assert answers == [answers[0]] * 20
    assert len(await records(1)) == 1
    # And later, by the header.
    metadata = (*person.by_key, ("idempotency-key", "a-1"))
    later = pb.CreateReplyRequest(message="Hi", model=MODEL)
    assert await other.CreateReply(later, timeout=5, metadata=metadata) == answers[0]
    assert len(provider.requests) == 1


async def test_a_request_id_stands_for_one_body_of_one_caller(
    chat, person: Person, stranger: Person, provider: FakeOpenAI
):
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, request_id="b-1")
    await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    await chat.CreateReply(request, timeout=5, metadata=stranger.by_key)
    assert len(provider.requests) == 2
    request.message = "Something else"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert status.reason_of(refused.value) == "REQUEST_ID_REUSED"


async def test_what_failed_may_be_asked_again(chat, person: Person, provider: FakeOpenAI):
    provider.script = Script(status=500)
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, request_id="c-1")
    with pytest.raises(grpc.aio.AioRpcError):
        await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    provider.script = Script(pieces=("fine",))
    assert (await chat.CreateReply(request, timeout=5, metadata=person.by_key)).message == "fine"
