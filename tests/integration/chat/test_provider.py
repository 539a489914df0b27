"""What a provider may do, and what its callers see of it."""

import asyncio
import time

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from mesh import status
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.streams import MODEL, events_of, text_of
from tests.integration.conftest import PROVIDER_KEY, Person
from tests.support import eventually


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (
            Script(status=401, body='{"error": {"message": "bad key sk-x"}}'),
            "UNAVAILABLE",
            "PROVIDER_CREDENTIALS",
        ),
        (
            Script(status=429, headers={"Retry-After": "7"}),
            "RESOURCE_EXHAUSTED",
            "PROVIDER_RATE_LIMITED",
        ),
        (Script(status=404), "NOT_FOUND", "PROVIDER_MODEL_NOT_FOUND"),
        (Script(status=500, body="Traceback"), "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
        (
            Script(status=302, headers={"Location": "http://127.0.0.1:1/"}),
            "UNAVAILABLE",
            "PROVIDER_UNAVAILABLE",
        ),
        (
            Script(status=400, body='{"error": {"message": "max_tokens is too large"}}'),
            "FAILED_PRECONDITION",
            "PROVIDER_REFUSED",
        ),
        (
            Script(status=400, body='{"error": {"message": "\udcff"}}'),
            "FAILED_PRECONDITION",
            "PROVIDER_REFUSED",
        ),
        (Script(pieces=(), end=End.SILENCE), "DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT"),
        (Script(pieces=(), end=End.CUT), "UNAVAILABLE", "PROVIDER_BROKE_OFF"),
        (Script(pieces=(), end=End.MALFORMED), "UNAVAILABLE", "PROVIDER_BROKE_OFF"),
    ],
    ids=["401", "429", "404", "500", "redirect", "400", "no text", "silence", "cut", "malformed"],
)
async def test_a_provider_that_fails_early_fails_the_call(
    chat, person: Person, provider: FakeOpenAI, script: Script, code: str, reason: str
):
    provider.script = script
    for call in (
        chat.CreateReply(
            pb.CreateReplyRequest(message="Hi", model=MODEL), timeout=5, metadata=person.by_key
        ),
        events_of(
            chat.StreamReply(
                pb.StreamReplyRequest(message="Hi", model=MODEL), timeout=5, metadata=person.by_key
            )
        ),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert (failed.value.code().name, status.reason_of(failed.value)) == (code, reason)
        assert "sk-" not in str(failed.value.details())
        assert "Traceback" not in str(failed.value.details())
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_key)
    assert not chats.chats


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (End.CUT, "PROVIDER_BROKE_OFF"),
        (End.EARLY, "PROVIDER_BROKE_OFF"),
        (End.MALFORMED, "PROVIDER_BROKE_OFF"),
        (End.ERROR, "PROVIDER_BROKE_OFF"),
        (End.SILENCE, "PROVIDER_TIMEOUT"),
    ],
)
async def test_a_provider_that_fails_late_gives_a_last_event(
    chat, person: Person, provider: FakeOpenAI, records, end: End, reason: str
):
    provider.script = Script(pieces=("a", "b"), pause=0.03, end=end)
    call = chat.StreamReply(
        pb.StreamReplyRequest(message="Hi there", model=MODEL), timeout=5, metadata=person.by_key
    )
    events: list[pb.StreamReplyResponse] = []
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for event in call:
            events.append(event)
    assert text_of(events) == "ab"
    assert [event.WhichOneof("event") for event in events][-1] == "error"
    assert events[-1].error.reason == reason == status.reason_of(failed.value)
    assert (end is End.ERROR) == events[-1].error.message.endswith("the end: out of memory")
    (record,) = await records(1)
    assert (record.status, record.basis, record.prompt_tokens, record.completion_tokens) == (
        "failed",
        "estimated",
        6,  # "Hi there" and what is around it.
        1,
    )
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_key)
    messages = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=chats.chats[0].id), timeout=5, metadata=person.by_key
    )
    assert [(m.content, m.finish_reason) for m in messages.messages] == [
        ("Hi there", ""),
        ("ab", "error"),
    ]


async def test_a_client_that_leaves_stops_the_provider_and_is_charged_what_it_got(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 500, pause=0.02)
    call = chat.StreamReply(
        pb.StreamReplyRequest(message="Go", model=MODEL), timeout=30, metadata=person.by_key
    )
    got = 0
    async for event in call:
        got += event.token.count("word")
        if got >= 5:
            break
    left_at = time.monotonic()
    call.cancel()
    (asked,) = provider.requests
    closed_at = await eventually(lambda: asked.closed_at)
    assert closed_at - left_at < 0.25
    (record,) = await records(1)
    assert record.status == "cancelled"
    assert got <= record.completion_tokens <= asked.sent


async def test_a_unary_client_that_leaves_stops_the_provider(
    chat, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 500, pause=0.02)
    call = chat.CreateReply(
        pb.CreateReplyRequest(message="Go", model=MODEL), timeout=30, metadata=person.by_key
    )
    waiting = asyncio.ensure_future(call)
    asked = await eventually(lambda: provider.requests and provider.requests[0])
    left_at = time.monotonic()
    waiting.cancel()
    assert await eventually(lambda: asked.closed_at) - left_at < 0.25


async def test_control_characters_never_reach_a_model(chat, person: Person, provider: FakeOpenAI):
    request = pb.CreateReplyRequest(message="a\x00b\x1b[31m\tc\n", model=MODEL)
    await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert provider.requests[0].body["messages"][0]["content"] == "ab[31m\tc\n"


async def test_what_a_database_can_not_hold_is_left_out_of_a_reply(
    chat, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("\0", "a\0b"), pause=0.03, finish_reason="st\0op", model="m\0")
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    events = await events_of(chat.StreamReply(request, timeout=5, metadata=person.by_key))
    assert [event.token for event in events] == ["ab", ""]
    assert (events[-1].finish_reason, events[-1].model) == ("stop", "m")
    listed = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=events[-1].chat_id), timeout=5, metadata=person.by_key
    )
    assert [(m.content, m.finish_reason) for m in listed.messages][1:] == [("ab", "stop")]


@pytest.mark.parametrize(
    ("model", "name", "key"),
    [
        ("gpt-3.5-turbo", "openai", PROVIDER_KEY),
        ("llama-3.3-70b-versatile", "groq", "gsk_the-operators"),
        ("meta-llama/Llama-3.3-70B-Instruct", "huggingface", "hf_the-operators"),
    ],
)
async def test_each_provider_is_called_by_its_own_key(
    chat, person: Person, provider: FakeOpenAI, records, model: str, name: str, key: str
):
    request = pb.CreateReplyRequest(message="Hi", model=model)
    await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    (asked,) = provider.requests
    assert (asked.headers["Authorization"], asked.body["model"]) == (f"Bearer {key}", model)
    (record,) = await records(1)
    assert (record.provider, record.model) == (name, model)
    found = await chat.GetModel(
        pb.GetModelRequest(model_id=model), timeout=5, metadata=person.by_key
    )
    assert found.owned_by == name
