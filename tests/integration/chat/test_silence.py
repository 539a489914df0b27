"""Models that think for long: every surface waits for them, says that it lives, and ends in itself.

Time is scaled: a minute of the limits is 1.2 seconds here, before a real edge.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp
import grpc
import pytest
from openai._streaming import SSEDecoder

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from mesh import status, time_limits
from tests import edge, harness, patience
from tests.fake_openai import End, FakeOpenAI, Script
from tests.harness import Mesh
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person
from tests.support import eventually

SCALE = 0.02
MINUTE_S = 60 * SCALE
# More than 10 seconds would be: a call that fails at once has to be faster on a busy machine.
HEADERS_AFTER_S = 0.25
PING_S = time_limits.PING_INTERVAL_S * SCALE
ASK = {"message": "Think", "model": MODEL, "store": False}
MESSAGES = {"model": MODEL, "messages": [{"role": "user", "content": "Think"}]}
EARLY = {"X-Early-Headers": "true"}


@dataclass(frozen=True)
class Scaled:
    """A second chat and a worker whose time is scaled, and the edge before them."""

    mesh: Mesh
    edge: edge.Edge


@asynccontextmanager
async def running(mesh: Mesh, ping_s: float) -> AsyncIterator[Scaled]:
    hour = str(time_limits.LONGEST_ANSWER_S * SCALE)
    settings = {
        **mesh.settings,
        "PROVIDER_FIRST_BYTE_TIMEOUT": hour,
        "PROVIDER_IDLE_TIMEOUT": hour,
        "PROVIDER_TOTAL_TIMEOUT": hour,
        "STREAM_HEADERS_AFTER": str(HEADERS_AFTER_S),
        "STREAM_PING_INTERVAL": str(ping_s),
    }
    async with AsyncExitStack() as stack:
        slow = harness.replace(mesh, settings=settings)
        second = await stack.enter_async_context(harness.replica(slow, "chat"))
        await stack.enter_async_context(harness.replica(second, "worker"))
        yield Scaled(second, await stack.enter_async_context(edge.before(second, SCALE)))


@pytest.fixture(scope="module")
async def scaled(mesh: Mesh) -> AsyncIterator[Scaled]:
    async with running(mesh, PING_S) as here:
        yield here


@dataclass
class Heard:
    """What came of an HTTP call: its status, its body, and when each piece came."""

    status: int
    body: bytes
    at: list[float]

    @property
    def longest_silence(self) -> float:
        return max(later - sooner for sooner, later in pairwise(self.at))

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = self.body.decode().split("\n\n")
        return [json.loads(each[6:]) for each in lines if each.startswith("data: {")]

    @property
    def pings(self) -> int:
        return self.body.count(b": ping\n\n")


async def heard(
    scaled: Scaled, person: Person, path: str, body: Any = None, **headers: str
) -> Heard:
    clock = asyncio.get_running_loop().time
    headers = {"Authorization": f"Bearer {person.key}", **headers}
    verb, url = "GET" if body is None else "POST", scaled.edge.url + path
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(120)) as http,
        http.request(verb, url, json=body, headers=headers) as answer,
    ):
        whole, at = b"", [clock()]
        async for piece in answer.content.iter_any():
            whole, _ = whole + piece, at.append(clock())
        return Heard(answer.status, whole, at)


async def generation_of(scaled: Scaled, person: Person) -> str:
    stub = generations_grpc.GenerationsServiceStub(await scaled.mesh.channel("chat"))

    async def newest() -> str:
        request = generations_pb.ListGenerationsRequest(status="running")
        listed = await stub.ListGenerations(request, timeout=5, metadata=person.by_key)
        return listed.generations[0].id if listed.generations else ""

    return await eventually(newest)


async def native(scaled: Scaled, person: Person) -> list[str]:
    """The kinds of event of a stream over native gRPC."""
    async with grpc.aio.insecure_channel(scaled.edge.grpc) as channel:
        stub = pb_grpc.ChatServiceStub(channel)
        request = pb.StreamReplyRequest(message="Think", model=MODEL, store=False)
        call = stub.StreamReply(request, timeout=120, metadata=person.by_key)
        return [event.WhichOneof("event") async for event in call]


async def native_whole(scaled: Scaled, person: Person) -> str:
    async with grpc.aio.insecure_channel(scaled.edge.grpc) as channel:
        stub = pb_grpc.ChatServiceStub(channel)
        request = pb.CreateReplyRequest(message="Think", model=MODEL, store=False)
        answer = await stub.CreateReply(request, timeout=120, metadata=person.by_key)
        return str(answer.message)


async def task_of(scaled: Scaled, person: Person) -> tuple[Heard, str]:
    """What who follows a background task hears, and what the task says in the end."""
    made = await heard(scaled, person, "/chat/background", {**ASK})
    task_id = json.loads(made.body)["task_id"]
    followed = await heard(scaled, person, f"/v1/generations/{task_id}/events")
    told = await heard(scaled, person, f"/chat/tasks/{task_id}")
    return followed, json.loads(told.body)["result"]["message"]


async def test_twenty_minutes_of_thought_pass_on_every_surface(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    """Twenty minutes before the headers, and two before each word: the edge cuts after one."""
    provider.script = Script(pieces=("a", "b"), headers_after=20 * MINUTE_S, pause=2 * MINUTE_S)
    began = asyncio.get_running_loop().time()
    stream = asyncio.create_task(heard(scaled, person, "/chat/stream", ASK))
    follow = f"/v1/generations/{await generation_of(scaled, person)}/events"
    translate = {"text": "Think", "model": MODEL, "target_language": "Farsi"}
    over_http = asyncio.gather(
        heard(scaled, person, follow),
        heard(scaled, person, "/v1/chat/completions", {**MESSAGES, "stream": True}),
        heard(scaled, person, "/api/chat", {"user_message": "Think", "model": MODEL}),
        heard(scaled, person, "/chat", ASK),
        heard(scaled, person, "/v1/chat/completions", MESSAGES),
        heard(scaled, person, "/api/v1/summarize", {"text": "Think", "model": MODEL}),
        heard(scaled, person, "/api/v1/translate", translate),
    )
    events, message, (task_events, task_message) = await asyncio.gather(
        native(scaled, person), native_whole(scaled, person), task_of(scaled, person)
    )
    followed, openai_stream, text, whole, openai_whole, summary, translation = await over_http
    assert asyncio.get_running_loop().time() - began > 22 * MINUTE_S
    for told in (await stream, followed, task_events):
        assert "".join(each.get("token", "") for each in told.events) == "ab"
        assert told.events[-1]["done"]
        assert not [each for each in told.events if "ping" in each]
    for told in (await stream, followed, task_events, openai_stream):
        # 80 in 20 minutes; a busy machine may be late with some, but a minute is cut by the edge.
        assert told.pings > 40
        assert told.longest_silence < MINUTE_S
    assert openai_stream.body.endswith(b"data: [DONE]\n\n")
    assert (text.status, text.body) == (200, b"ab")
    for told, name in ((whole, "message"), (summary, "summary"), (translation, "translation")):
        assert (told.status, json.loads(told.body)[name]) == (200, "ab")
    assert json.loads(openai_whole.body)["choices"][0]["message"]["content"] == "ab"
    assert (events.count("ping") > 20, events[-1]) == (True, "done")
    assert [each for each in events if each != "ping"] == ["token", "token", "done"]
    assert message == task_message == "ab"


async def test_without_pings_the_edge_cuts_a_stream_that_thinks(
    mesh: Mesh, person: Person, provider: FakeOpenAI
):
    """What the test above would not see if the limits of its edge were not scaled."""
    provider.script = Script(pieces=("a", "b"), pause=2 * MINUTE_S)
    async with running(mesh, ping_s=30) as silent:
        with pytest.raises(aiohttp.ClientPayloadError):
            await heard(silent, person, "/chat/stream", ASK)


async def test_comments_are_skipped_by_openais_package(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("a", "b"), pause=4 * PING_S)
    got = await heard(scaled, person, "/v1/chat/completions", {**MESSAGES, "stream": True})
    assert got.pings >= 2

    async def one_by_one() -> AsyncIterator[bytes]:
        yield got.body

    told = [event.data async for event in SSEDecoder().aiter_bytes(one_by_one())]
    assert len([each for each in told if '"content"' in each]) == 2
    assert told[-1] == "[DONE]"


STREAMS = {
    "/chat/stream": ASK,
    "/v1/chat/completions": {**MESSAGES, "stream": True},
    "/api/chat": {"user_message": "Think", "model": MODEL},
}


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize(
    ("silent_for", "early", "has_status"),
    [(0.0, False, True), (3 * HEADERS_AFTER_S, False, False), (HEADERS_AFTER_S / 2, True, False)],
    ids=["at once", "after its headers", "after headers that were wanted at once"],
)
async def test_a_failure_has_a_status_until_the_headers_are_out_and_is_the_last_event_then(
    scaled: Scaled,
    person: Person,
    provider: FakeOpenAI,
    path: str,
    silent_for: float,
    early: bool,
    has_status: bool,
):
    provider.script = Script(headers_after=silent_for, status=401, body="{}")
    got = await heard(scaled, person, path, STREAMS[path], **(EARLY if early else {}))
    assert got.status == (503 if has_status else 200)
    if has_status:
        assert json.loads(got.body)["error"]["reason"] == "PROVIDER_CREDENTIALS"
    elif path == "/api/chat":
        assert got.body.startswith(b"\n[PROVIDER_CREDENTIALS: ")
    else:
        assert got.body.startswith(b": ")
        assert got.pings >= 1
        assert got.events[-1]["error"]["reason"] == "PROVIDER_CREDENTIALS"
        assert len(got.events) == 1


async def test_headers_that_are_wanted_early_are_there_while_the_model_thinks(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    provider.script = Script(first_after=20)
    for path, body in STREAMS.items():
        headers = {"Authorization": f"Bearer {person.key}", **EARLY}
        async with (
            aiohttp.ClientSession() as http,
            asyncio.timeout(patience.patient(2)),
            http.post(scaled.edge.url + path, json=body, headers=headers) as answer,
        ):
            assert answer.status == 200
            assert answer.headers["X-Generation-Id"]
            assert not [name for name in answer.headers if name.lower().startswith("khesht")]


async def unread(scaled: Scaled, person: Person) -> socket.socket:
    """A connection on which a stream was asked for, with hardly any room to receive it."""
    host, port = scaled.edge.url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    body = json.dumps({**MESSAGES, "stream": True})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/json\r\nAuthorization: Bearer {person.key}\r\n\r\n"
    )
    await loop.sock_sendall(client, (head + body).encode())
    return client


async def test_who_takes_nothing_for_a_minute_is_cut_and_who_reads_slowly_is_not(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "%s"}}]}\n\n' % (b"word " * 200)
    provider.script = Script(raw=chunk * 16, times=2_000)
    loop = asyncio.get_running_loop()
    takes_nothing, reads_slowly = await unread(scaled, person), await unread(scaled, person)
    with takes_nothing, reads_slowly:
        for _ in range(40):  # Four seconds: three times as long as who reads nothing has.
            assert await loop.sock_recv(reads_slowly, 8_192)
            await asyncio.sleep(0.1)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(20):
                for _ in range(
                    1_000
                ):  # What had arrived, and nothing else of all that was to come.
                    await loop.sock_recv(takes_nothing, 8_192)


async def test_what_looks_like_a_ping_in_a_text_stays_text(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    """The edge makes comments of pings, and of nothing that a model writes."""
    text = 'data: {"generation_id":"0","seq":1,"ping":true}\n\n'
    provider.script = Script(pieces=(text, text), pause=3 * PING_S)
    got = await heard(scaled, person, "/chat/stream", ASK)
    assert got.pings >= 1
    assert got.events[-1]["full_text"] == text * 2


async def test_a_stream_whose_callers_time_is_over_says_so(
    scaled: Scaled, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("a",), end=End.SILENCE)
    async with grpc.aio.insecure_channel(scaled.edge.grpc) as channel:
        stub = pb_grpc.ChatServiceStub(channel)
        request = pb.StreamReplyRequest(message="Think", model=MODEL, store=False)
        call, events = stub.StreamReply(request, timeout=2, metadata=person.by_key), []
        with pytest.raises(grpc.aio.AioRpcError) as late:
            async for event in call:
                events.append(event)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert status.reason_of(late.value) == events[-1].error.reason == "DEADLINE_EXCEEDED"
    (asked,) = provider.requests
    await eventually(lambda: asked.closed_at)


async def test_the_limit_of_a_stream_is_told_as_its_last_event(
    scaled: Scaled, person: Person, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    provider.script = Script(pieces=("a",), end=End.SILENCE)
    rules = scaled.mesh.servers["chat"]._chain.rules
    method = "/khesht.chat.v1.ChatService/StreamReply"
    monkeypatch.setitem(rules, method, harness.replace(rules[method], limit=1.0))
    got = await heard(scaled, person, "/chat/stream", ASK)
    assert (got.status, got.events[-1]["error"]["reason"]) == (200, "DEADLINE_EXCEEDED")
