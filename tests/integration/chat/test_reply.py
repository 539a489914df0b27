"""Replies, whole and streamed, over gRPC with a scripted provider."""

import uuid

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from mesh import status
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL, events_of, text_of
from tests.integration.conftest import PROVIDER_KEY, Person


async def test_a_reply_is_what_the_provider_said(chat, person: Person, provider: FakeOpenAI):
    provider.script = Script(tokens=(25, 7))
    request = pb.CreateReplyRequest(message="Hello", model=MODEL, temperature=0.5, max_tokens=7)
    reply = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert (reply.message, reply.model, reply.finish_reason) == (
        "Hello, world!",
        "gpt-4o-mini-2024-07-18",
        "stop",
    )
    assert reply.usage == pb.Usage(prompt_tokens=25, completion_tokens=7, total_tokens=32)
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
