"""Replies, whole and streamed, over gRPC with a scripted provider."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import grpc
import psycopg
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import status
from tests.fake_openai import End, FakeOpenAI, Script
from tests.harness import Mesh
from tests.integration.conftest import PROVIDER_KEY, Person
from tests.support import eventually

MODEL = "gpt-4o-mini"


@pytest.fixture
async def chat(mesh: Mesh) -> pb_grpc.ChatServiceStub:
    return pb_grpc.ChatServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def records(mesh: Mesh, person: Person):
    """Asks for the person's usage records until there are so many."""
    usage = usage_grpc.UsageServiceStub(await mesh.channel("usage"))

    async def ask(count: int) -> list[usage_pb.UsageRecord]:
        async def found() -> list[usage_pb.UsageRecord]:
            listed = await usage.ListUsage(
                usage_pb.ListUsageRequest(), timeout=5, metadata=person.by_token
            )
            return list(listed.records) if len(listed.records) >= count else []

        return await eventually(found)

    return ask


async def events_of(stream: AsyncIterator[pb.StreamReplyResponse]) -> list[pb.StreamReplyResponse]:
    return [event async for event in stream]


def text_of(events: list[pb.StreamReplyResponse]) -> str:
    return "".join(event.token for event in events)


async def test_a_reply_is_what_the_provider_said(chat, person: Person, provider: FakeOpenAI):
    request = pb.CreateReplyRequest(message="Hello", model=MODEL, temperature=0.5, max_tokens=7)
    reply = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert (reply.message, reply.model, reply.finish_reason) == (
        "Hello, world!",
        "gpt-4o-mini-2024-07-18",
        "stop",
    )
    assert reply.usage == pb.Usage(prompt_tokens=25, completion_tokens=150, total_tokens=175)
    assert reply.id == reply.generation_id
    assert reply.chat_id
    (asked,) = provider.requests
    assert asked.headers["Authorization"] == f"Bearer {PROVIDER_KEY}"
    assert asked.body == {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_stream_gives_tokens_and_one_done(chat, person: Person, provider: FakeOpenAI):
    provider.script = Script(pieces=("a ", "b ", "c"), pause=0.03)
    request = pb.StreamReplyRequest(messages=[pb.Turn(role="user", content="Go")], model="fast")
    events = await events_of(chat.StreamReply(request, timeout=5, metadata=person.by_token))
    assert [event.WhichOneof("event") for event in events] == ["token"] * 3 + ["done"]
    assert [event.seq for event in events] == [1, 2, 3, 4]
    last = events[-1]
    assert (last.full_text, last.finish_reason, last.HasField("chat_id")) == (
        "a b c",
        "stop",
        False,
    )
    assert len({event.generation_id for event in events}) == 1


async def test_headers_tell_the_generation_and_the_limit(chat, person: Person, provider):
    call = chat.StreamReply(
        pb.StreamReplyRequest(message="Hi", model=MODEL), timeout=5, metadata=person.by_key
    )
    events = await events_of(call)
    headers = dict(await call.initial_metadata())
    assert headers["x-generation-id"] == events[0].generation_id
    assert headers["ratelimit-policy"] == '"per-minute";q=1000;w=60'
    assert headers["ratelimit"].startswith('"per-minute";r=999;t=')


async def test_a_chat_remembers_over_three_turns(chat, person: Person, provider: FakeOpenAI):
    provider.script = Script(pieces=("one",))
    first = await chat.CreateReply(
        pb.CreateReplyRequest(message="First question\nmore", model=MODEL),
        timeout=5,
        metadata=person.by_key,
    )
    for said, answer in (("Second", "two"), ("Third", "three")):
        provider.script = Script(pieces=(answer,))
        await chat.CreateReply(
            pb.CreateReplyRequest(
                message=said, model=MODEL, chat_id=first.chat_id, system_prompt="Be brief."
            ),
            timeout=5,
            metadata=person.by_key,
        )
    assert [turn["content"] for turn in provider.requests[-1].body["messages"]] == [
        "Be brief.",
        "First question\nmore",
        "one",
        "Second",
        "two",
        "Third",
    ]
    listed = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=first.chat_id), timeout=5, metadata=person.by_token
    )
    assert [(m.role, m.content) for m in listed.messages] == [
        ("user", "First question\nmore"),
        ("assistant", "one"),
        ("user", "Second"),
        ("assistant", "two"),
        ("user", "Third"),
        ("assistant", "three"),
    ]
    assert listed.messages[1].id == first.id
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_token)
    assert [(c.id, c.title) for c in chats.chats] == [(first.chat_id, "First question")]


async def test_nothing_is_stored_unless_asked(chat, person: Person, provider: FakeOpenAI):
    turns = [pb.Turn(role="user", content="Hi")]
    for request in (
        pb.CreateReplyRequest(messages=turns, model=MODEL),
        pb.CreateReplyRequest(message="Hi", model=MODEL, store=False),
    ):
        reply = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
        assert not reply.HasField("chat_id")
    kept = await chat.CreateReply(
        pb.CreateReplyRequest(messages=turns, model=MODEL, store=True),
        timeout=5,
        metadata=person.by_key,
    )
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_key)
    assert [c.id for c in chats.chats] == [kept.chat_id]


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        (
            Script(status=401, body='{"error": {"message": "bad key sk-x"}}'),
            "UNAVAILABLE",
            "PROVIDER_CREDENTIALS",
        ),
        (Script(status=429, headers={"Retry-After": "7"}), "UNAVAILABLE", "PROVIDER_RATE_LIMITED"),
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
        (Script(pieces=(), end=End.SILENCE), "DEADLINE_EXCEEDED", "PROVIDER_TIMEOUT"),
        (Script(pieces=(), end=End.CUT), "UNAVAILABLE", "PROVIDER_BROKE_OFF"),
        (Script(pieces=(), end=End.MALFORMED), "UNAVAILABLE", "PROVIDER_BROKE_OFF"),
    ],
    ids=["401", "429", "500", "redirect", "400", "silence", "cut", "malformed"],
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
    assert "secret" not in str(events[-1])
    (record,) = await records(1)
    assert (record.status, record.basis, record.prompt_tokens, record.completion_tokens) == (
        "failed",
        "estimated",
        2,
        2,
    )
    chats = await chat.ListChats(pb.ListChatsRequest(), timeout=5, metadata=person.by_key)
    messages = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=chats.chats[0].id), timeout=5, metadata=person.by_key
    )
    assert [(m.content, m.finish_reason) for m in messages.messages] == [
        ("Hi there", ""),
        ("ab", "error"),
    ]


@pytest.mark.parametrize("end", [End.WHOLE, End.WITHOUT_DONE])
async def test_usage_is_recorded_as_the_provider_counted(
    chat, person: Person, provider: FakeOpenAI, records, end: End
):
    provider.script = Script(tokens=(1_000, 500), end=end)
    reply = await chat.CreateReply(
        pb.CreateReplyRequest(message="Hi", model=MODEL),
        timeout=5,
        metadata=(*person.by_key, ("x-request-id", "request-of-the-edge")),
    )
    (record,) = await records(1)
    assert record.generation_id == reply.generation_id
    assert (record.request_id, record.key_id) == ("request-of-the-edge", person.key_id)
    assert (record.prompt_tokens, record.completion_tokens) == (1_000, 500)
    assert record.cost_usd == pytest.approx(1_000 * 0.15e-6 + 500 * 0.60e-6)
    assert (record.status, record.basis, record.provider) == ("completed", "provider", "openai")


async def test_usage_is_estimated_when_the_provider_does_not_count(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("a", "b", "c"), end=End.WITHOUT_USAGE)
    await chat.CreateReply(
        pb.CreateReplyRequest(message="12345", model=MODEL), timeout=5, metadata=person.by_key
    )
    (record,) = await records(1)
    assert (record.basis, record.prompt_tokens, record.completion_tokens) == ("estimated", 2, 3)


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


async def test_a_message_may_have_10000_characters_and_no_more(
    chat, person: Person, provider: FakeOpenAI
):
    longest = pb.CreateReplyRequest(message="é" * 10_000, model=MODEL)
    assert (await chat.CreateReply(longest, timeout=5, metadata=person.by_key)).message
    for request in (
        pb.CreateReplyRequest(message="é" * 10_001, model=MODEL),
        pb.CreateReplyRequest(messages=[pb.Turn(role="user", content="x" * 10_001)], model=MODEL),
        pb.CreateReplyRequest(messages=[pb.Turn(role="user", content="x")] * 51, model=MODEL),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await chat.CreateReply(request, timeout=5, metadata=person.by_key)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert status.reason_of(refused.value) == "MESSAGE_TOO_LONG"
    assert len(provider.requests) == 1


async def test_control_characters_never_reach_a_model(chat, person: Person, provider: FakeOpenAI):
    request = pb.CreateReplyRequest(message="a\x00b\x1b[31m\tc\n", model=MODEL)
    await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert provider.requests[0].body["messages"][0]["content"] == "ab[31m\tc\n"


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"message": "Hi", "model": "gpt-99"}, "NOT_FOUND", "MODEL_NOT_FOUND"),
        ({"message": "Hi", "chat_id": str(uuid.UUID(int=1))}, "NOT_FOUND", "CHAT_NOT_FOUND"),
        ({}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ({"message": "\x00"}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ({"message": "Hi", "temperature": 3}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ({"message": "Hi", "max_tokens": 0}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
        ({"message": "Hi", "chat_id": "x"}, "INVALID_ARGUMENT", "INVALID_FIELDS"),
    ],
)
async def test_a_wrong_request_is_refused(chat, person: Person, provider, fields, code, reason):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chat.CreateReply(pb.CreateReplyRequest(**fields), timeout=5, metadata=person.by_key)
    assert (refused.value.code().name, status.reason_of(refused.value)) == (code, reason)
    assert not provider.requests


async def test_a_reply_to_a_chat_deleted_meanwhile_is_still_charged(
    chat, person: Person, provider: FakeOpenAI, records
):
    made = await chat.CreateChat(pb.CreateChatRequest(), timeout=5, metadata=person.by_key)
    provider.script = Script(pieces=("slow ",) * 10, pause=0.03)
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, chat_id=made.id)
    reply = asyncio.ensure_future(chat.CreateReply(request, timeout=5, metadata=person.by_key))
    await eventually(lambda: provider.requests)
    await chat.DeleteChat(pb.DeleteChatRequest(chat_id=made.id), timeout=5, metadata=person.by_key)
    assert (await reply).message == "slow " * 10
    assert len(await records(1)) == 1


async def test_echo_says_the_message_back_in_words(chat, person: Person):
    request = pb.StreamReplyRequest(message="the  quick\nfox ", model="echo")
    events = await events_of(chat.StreamReply(request, timeout=5, metadata=person.by_key))
    assert text_of(events) == "the  quick\nfox "
    assert len(events) == 4
    assert events[-1].usage.total_tokens == 6


async def test_models_are_listed_and_found_by_alias(chat, person: Person):
    listed = await chat.ListModels(pb.ListModelsRequest(), timeout=5, metadata=person.by_key)
    assert {"echo", "gpt-4o-mini", "gpt-3.5-turbo"} <= {model.id for model in listed.data}
    found = await chat.GetModel(
        pb.GetModelRequest(model_id="fast"), timeout=5, metadata=person.by_key
    )
    assert (found.id, found.prompt_usd_per_million_tokens) == ("gpt-4o-mini", 0.15)


@pytest.mark.parametrize("tokens", [(3_000_000_000, 1), (2**31 - 1, 2**31 - 1), (-1, 5)])
async def test_a_provider_that_counts_nonsense_does_not_count(
    chat, person: Person, provider: FakeOpenAI, records, tokens: tuple[int, int]
):
    for counted in (tokens, (10, 20)):
        provider.script = Script(tokens=counted)
        request = pb.CreateReplyRequest(message="12345678", model=MODEL)
        await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    newest, nonsense = await records(2)
    assert (newest.basis, newest.total_tokens) == ("provider", 30)
    assert (nonsense.basis, nonsense.prompt_tokens, nonsense.completion_tokens) == (
        "estimated",
        2,
        4,
    )


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


async def test_a_database_that_can_not_write_for_a_while_loses_nothing(
    chat, person: Person, provider: FakeOpenAI, records, admin_dsn: str
):
    def writable(yes: bool) -> None:
        mode = "off" if yes else "on"
        with psycopg.connect(admin_dsn, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE khesht_chat SET default_transaction_read_only = {mode}")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'khesht_chat'"
            )

    writable(False)
    try:
        request = pb.CreateReplyRequest(message="Hi", model=MODEL)
        reply = asyncio.ensure_future(chat.CreateReply(request, timeout=15, metadata=person.by_key))
        done, _ = await asyncio.wait({reply}, timeout=1)
        assert not done  # It waits for its ending to be written.
    finally:
        writable(True)
    chat_id = (await reply).chat_id
    listed = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=chat_id), timeout=5, metadata=person.by_key
    )
    assert len(listed.messages) == 2
    assert len(await records(1)) == 1


async def test_a_reply_cancelled_before_its_first_word_has_its_record(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=(), end=End.SILENCE)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    call = chat.StreamReply(request, timeout=10, metadata=person.by_key)
    reading = asyncio.ensure_future(events_of(call))
    await eventually(lambda: provider.requests)
    reading.cancel()
    (record,) = await records(1)
    assert (record.status, record.total_tokens) == ("cancelled", 0)
