"""What a stream in OpenAI's format says while the model thinks."""

from collections.abc import AsyncIterator

import pytest
from google.api.httpbody_pb2 import HttpBody
from openai._streaming import SSEDecoder

from khesht.chat.v1 import completions_service_pb2 as pb
from khesht.chat.v1 import completions_service_pb2_grpc as pb_grpc
from services.chat.domain import wire
from services.chat.servicer import completions
from tests.fake_openai import FakeOpenAI, Script
from tests.harness import Mesh
from tests.integration.conftest import Person

BODY = b'{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}], "stream": %s}'


async def pieces(mesh: Mesh, person: Person, *, stream: bool) -> list[bytes]:
    stub = pb_grpc.CompletionsServiceStub(await mesh.channel("chat"))
    body = HttpBody(content_type="application/json", data=BODY % (b"true" if stream else b"false"))
    call = stub.CreateChatCompletion(
        pb.CreateChatCompletionRequest(body=body), timeout=10, metadata=person.by_key
    )
    return [answer.body.data async for answer in call]


async def one_by_one(data: list[bytes]) -> AsyncIterator[bytes]:
    for each in data:
        yield each


@pytest.mark.parametrize(("interval", "beats"), [(0.1, True), (15.0, False)])
async def test_silence_is_filled_with_comments_that_clients_skip(
    mesh: Mesh,
    person: Person,
    provider: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    interval: float,
    beats: bool,
):
    monkeypatch.setattr(completions, "_HEARTBEAT_AFTER", interval)
    provider.script = Script(pieces=("a", "b"), pause=0.35)
    got = await pieces(mesh, person, stream=True)
    comments = [each for each in got if each == wire.HEARTBEAT]
    assert (len(comments) >= 2) == beats
    # Before the first part a failure has its status; with it comes whose stream it is.
    assert got[0].startswith(b": generation ")
    assert b"data: " in got[0]
    told = [event.data async for event in SSEDecoder().aiter_bytes(one_by_one(got))]
    texts = [each for each in told if '"content"' in each]
    assert (len(texts), told[-1]) == (2, "[DONE]")


async def test_an_answer_that_is_not_streamed_is_no_stream_of_comments(
    mesh: Mesh, person: Person, provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(completions, "_HEARTBEAT_AFTER", 0.05)
    provider.script = Script(headers_after=0.3)
    (answer,) = await pieces(mesh, person, stream=False)
    assert answer.startswith(b"{")
