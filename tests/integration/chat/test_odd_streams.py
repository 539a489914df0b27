"""What is odd in a provider's stream, and what each surface makes of it: the text, whole, and its price."""

import asyncio
import contextlib
import gzip
import json
import time
import zlib

import pytest
from google.api.httpbody_pb2 import HttpBody

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from mesh import errors
from services.chat.providers import transport
from services.chat.providers.codecs import stream
from tests import harness
from tests.fake_openai import FakeOpenAI, Script, cut
from tests.integration.chat.routing import PROMPT, account, asked, relay, routing, text_of
from tests.integration.chat.streams import MODEL, events_of
from tests.integration.chat.streams import text_of as text_of_events
from tests.integration.conftest import Person
from tests.odd_streams import END, ODD, USAGE, all_at_once, among_good_ones, chunk, event, sizes
from tests.support import eventually


@pytest.fixture
async def completions(mesh: harness.Mesh) -> completions_grpc.CompletionsServiceStub:
    return completions_grpc.CompletionsServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def tasks(mesh: harness.Mesh):
    async with harness.replica(mesh, "worker"):
        yield tasks_grpc.TasksServiceStub(await mesh.channel("chat"))


async def whole(chat, person: Person) -> str:
    request = pb.CreateReplyRequest(message="Hi", model=MODEL)
    return (await chat.CreateReply(request, timeout=10, metadata=person.by_key)).message


async def streamed(chat, person: Person) -> str:
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    events = await events_of(chat.StreamReply(request, timeout=10, metadata=person.by_key))
    assert events[-1].done
    assert events[-1].full_text == text_of_events(events)
    return events[-1].full_text


async def passed_on(completions, person: Person, *, stream: bool) -> bytes:
    asked_for = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    body = HttpBody(content_type="application/json", data=json.dumps(asked_for).encode())
    request = completions_pb.CreateChatCompletionRequest(body=body)
    call = completions.CreateChatCompletion(request, timeout=10, metadata=person.by_key)
    return b"".join([answer.body.data async for answer in call])


def text_of_whole(body: bytes) -> str:
    """The text of a whole answer in OpenAI's format."""
    text = json.loads(body)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


async def task_of(tasks, person: Person) -> tasks_pb.GetTaskResponse:
    request = tasks_pb.CreateTaskRequest(message="Hi", model=MODEL)
    taken = await tasks.CreateTask(request, timeout=5, metadata=person.by_key)

    async def over():
        got = tasks_pb.GetTaskRequest(task_id=taken.task_id)
        task = await tasks.GetTask(got, timeout=5, metadata=person.by_key)
        return task if task.status not in ("pending", "running") else None

    return await eventually(over, within=30)


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_event_ends_no_stream(
    chat, completions, person: Person, provider: FakeOpenAI, records, name: str
):
    stream, text = among_good_ones(name)
    provider.script = Script(exact=cut(stream, 11, 64, 3))
    assert await whole(chat, person) == text
    assert await streamed(chat, person) == text
    relayed = await passed_on(completions, person, stream=True)
    assert relayed.endswith(b"data: [DONE]\n\n")
    for piece in (chunk("Hello "), chunk(" there"), chunk(None, "stop")):
        assert piece in relayed
    if name in ("null", "a list", "a number", "a comment as data", "broken"):
        assert b": " + ODD[name][0] in relayed  # As a comment, which no client stumbles over.
    if name in ("no index", "no delta", "parts", "an empty reason", "a cut emoji"):
        assert ODD[name][0] in relayed  # As it came.
    assert text_of_whole(await passed_on(completions, person, stream=False)) == text
    told = await records(4)
    assert {(r.status, r.basis, r.prompt_tokens, r.completion_tokens) for r in told} == {
        ("completed", "provider", USAGE["prompt_tokens"], USAGE["completion_tokens"])
    }


@pytest.mark.parametrize("seed", range(5))
async def test_the_text_is_the_same_on_all_surfaces_however_it_is_cut(
    chat, completions, tasks, person: Person, provider: FakeOpenAI, records, seed: int
):
    stream, text = all_at_once()
    provider.script = Script(exact=cut(stream, *sizes(seed)))
    assert await whole(chat, person) == text
    assert await streamed(chat, person) == text
    assert b"data: [DONE]\n\n" in await passed_on(completions, person, stream=True)
    assert text_of_whole(await passed_on(completions, person, stream=False)) == text
    assert (await task_of(tasks, person)).result.message == text
    assert {record.total_tokens for record in await records(5)} == {USAGE["total_tokens"]}


@pytest.mark.parametrize(
    ("end", "reason", "basis"),
    [
        (b"data: [DONE]\n\n", "stop", "estimated"),
        (chunk(None, "length"), "length", "estimated"),
        (chunk(None, "length") + event({"choices": [], "usage": USAGE}), "length", "provider"),
    ],
    ids=["done without a reason", "a reason alone", "a reason and counts"],
)
async def test_an_end_in_any_form_is_one(
    chat, person: Person, provider: FakeOpenAI, records, end: bytes, reason: str, basis: str
):
    provider.script = Script(exact=(chunk("Hello"), end))
    request = pb.CreateReplyRequest(message="Hi", model=MODEL)
    reply = await chat.CreateReply(request, timeout=10, metadata=person.by_key)
    assert (reply.message, reply.finish_reason) == ("Hello", reason)
    (record,) = await records(1)
    assert (record.status, record.basis) == ("completed", basis)


async def test_a_connection_that_breaks_after_the_reason_breaks_nothing_off(provider: FakeOpenAI):
    async with routing(account("p", provider)) as router:
        for prompt in (None, relay(stream=True)):
            provider.script = Script(exact=(chunk("Hello", "stop"), 0.05, None))
            told = await (asked(router, "p") if prompt is None else asked(router, "p", prompt))
            assert text_of(told) == "Hello"


@pytest.mark.parametrize(
    "kind", ["text/event-stream; charset=latin-1", "application/json", "text/html"]
)
async def test_what_is_said_of_the_kind_of_an_answer_counts_for_nothing(
    chat, completions, person: Person, provider: FakeOpenAI, kind: str
):
    answer = {"choices": [{"message": {"content": "é"}}], "usage": USAGE}
    for data in (chunk("é") + END, b"\n\n" + json.dumps(answer).encode()):
        provider.script = Script(exact=cut(data, 9), headers={"Content-Type": kind})
        assert await whole(chat, person) == "é"
        assert await streamed(chat, person) == "é"
        assert b'"\\u00e9"' in await passed_on(completions, person, stream=True)
        assert text_of_whole(await passed_on(completions, person, stream=False)) == "é"


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_an_answer_that_is_compressed_unasked_is_read(
    chat, person: Person, provider: FakeOpenAI, coding: str
):
    packed = gzip.compress(chunk("Hello") + END)
    if coding == "deflate":
        packed = zlib.compress(chunk("Hello") + END)
    provider.script = Script(exact=cut(packed, 5), headers={"Content-Encoding": coding})
    assert await whole(chat, person) == "Hello"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "odd"])
async def test_an_answer_that_can_not_be_unpacked_broke_off(provider: FakeOpenAI, coding: str):
    provider.script = Script(exact=(b"\0" * 100,), headers={"Content-Encoding": coding})
    async with routing(account("p", provider)) as router:
        for prompt in (PROMPT, relay(stream=True), relay(stream=False)):
            with pytest.raises(errors.Unavailable) as failed:
                await asked(router, "p", prompt)
            assert failed.value.reason == "PROVIDER_BROKE_OFF"


async def longest_hold(router, prompt) -> float:
    """Seconds that the event loop was held at most while p answers, whatever it answers."""
    longest, over = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal longest
        while not over.is_set():
            began = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        with contextlib.suppress(errors.MeshError):  # Some are too long.
            await asked(router, "p", prompt)
    finally:
        over.set()
        await watching
    return longest


@pytest.mark.parametrize(
    "line",
    [
        b":\n",
        b"data:\n\n",
        b"data:1\n\n",
        b"data:{}\n\n",
        b'data:{"choices":[5]}\n\n',
        b"\n",
        b"event:x\n",
        b"data:[\n",
        b'data:{"choices":[{"delta":{"content":["x"]}}]}\n\n',
    ],
    ids=repr,
)
async def test_a_compressed_bomb_holds_up_nobody(provider: FakeOpenAI, line: bytes):
    bomb = gzip.compress(line * (8_000_000 // len(line)) + b"\n\n" + chunk("Hello") + END)
    assert len(bomb) < 100_000
    provider.script = Script(exact=(bomb,), headers={"Content-Encoding": "gzip"})
    async with routing(account("p", provider)) as router:
        for prompt in (relay(stream=True), relay(stream=False)):
            assert await longest_hold(router, prompt) < 0.05


async def test_without_giving_way_it_would_hold_up_everybody(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transport, "_TURN_BYTES", 1 << 30)
    bomb = gzip.compress(b"data:{}\n\n" * 800_000 + chunk("Hello") + END)
    provider.script = Script(exact=(bomb,), headers={"Content-Encoding": "gzip"})
    async with routing(account("p", provider)) as router:
        assert await longest_hold(router, relay(stream=True)) > 0.05


async def test_a_stream_that_has_no_end_of_comments_is_ended(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stream, "_MAX_STREAM_BYTES", 1 << 20)
    provider.script = Script(exact=(chunk("Hello"), *(b": comment\n" * 10_000,) * 20, END))
    async with routing(account("p", provider)) as router:
        with pytest.raises(errors.FailedPrecondition, match="more than a reply may have"):
            await asked(router, "p")
