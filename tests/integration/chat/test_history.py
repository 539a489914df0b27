"""A chat that outgrows its model: its oldest turns are left out, and the answer says so."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from mesh import status
from tests import harness
from tests.fake_openai import UNBROKEN, End, FakeOpenAI, Script, models_file
from tests.harness import Mesh
from tests.integration.chat.streams import events_of
from tests.integration.conftest import Person
from tests.support import eventually

MODELS = """
[[models]]
id = "small"
provider = "openai"
max_output_tokens = 100
prompt_price = "1"
completion_price = "1"
context_window = 700
[[models]]
id = "unsaid"
provider = "openai"
max_output_tokens = 100
prompt_price = "1"
completion_price = "1"
"""
# About 100 tokens.
LONG = "word " * 100
REFUSED = Script(
    status=400,
    body=json.dumps(
        {
            "error": {
                "message": "This model's maximum context length is 700 tokens. However, your"
                " messages resulted in 950 tokens.",
                "code": "context_length_exceeded",
                "param": "messages",
            }
        }
    ),
)


@pytest.fixture(scope="module")
async def own(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """A chat and a worker that have learnt nothing, with a model of a small window."""
    folder: Path = tmp_path_factory.mktemp("models")
    file = models_file(folder, UNBROKEN + MODELS)
    settings = {**mesh.settings, "MODELS_FILE": file, "HISTORY_LIMIT": "20"}
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(
            harness.replica(harness.replace(mesh, settings=settings), "chat")
        )
        await stack.enter_async_context(harness.replica(second, "worker"))
        yield second


@pytest.fixture
async def stub(own: Mesh) -> pb_grpc.ChatServiceStub:
    return pb_grpc.ChatServiceStub(await own.channel("chat"))


def conversation(turns: int = 9) -> list[pb.Turn]:
    """User and assistant in turns, the user last, each numbered."""
    roles = ("user", "assistant")
    return [pb.Turn(role=roles[at % 2], content=f"{at} {LONG}") for at in range(turns)]


def sent(provider: FakeOpenAI, at: int = -1) -> list[str]:
    """The roles and numbers of the turns that the provider got."""
    messages: list[dict[str, Any]] = provider.requests[at].body["messages"]
    return [f"{each['role']} {each['content'].split()[0]}" for each in messages]


LAST_OF_NINE = ["system Be", "user 6", "assistant 7", "user 8"]


async def test_the_oldest_turns_are_left_out_and_the_answer_says_so(
    stub, person: Person, provider: FakeOpenAI
):
    request = pb.CreateReplyRequest(
        messages=conversation(), model="small", system_prompt="Be brief."
    )
    call = stub.CreateReply(request, timeout=5, metadata=person.by_key)
    answer = await call
    assert sent(provider) == LAST_OF_NINE
    assert (answer.messages_left_out, answer.warning) == (6, "messages-left-out=6")
    assert dict(await call.initial_metadata())["x-khesht-warning"] == "messages-left-out=6"
    short = pb.CreateReplyRequest(messages=conversation(3), model="small")
    answer = await stub.CreateReply(short, timeout=5, metadata=person.by_key)
    assert not answer.HasField("messages_left_out")
    assert not answer.HasField("warning")


async def test_a_stored_chat_goes_on_and_keeps_all_of_its_messages(
    stub, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=(LONG,))
    chat_id, left_out = None, []
    for at in range(6):
        request = pb.CreateReplyRequest(message=f"{at} {LONG}", model="small", chat_id=chat_id)
        answer = await stub.CreateReply(request, timeout=5, metadata=person.by_key)
        chat_id, left_out = answer.chat_id, [*left_out, answer.messages_left_out]
    assert left_out == [0, 0, 2, 4, 6, 8]
    listed = pb.ListMessagesRequest(chat_id=chat_id)
    kept = await stub.ListMessages(listed, timeout=5, metadata=person.by_key)
    assert len(kept.messages) == 12


async def test_turns_beyond_the_limit_of_a_history_are_said_to_be_left_out(
    stub, person: Person, provider: FakeOpenAI
):
    """Of 20 turns one is the new one, and no reply is first: so 18 of those before are read."""
    provider.script = Script(pieces=("Yes.",))
    chat_id, told = None, []
    for at in range(12):
        request = pb.CreateReplyRequest(message=f"{at} Hi", model="unsaid", chat_id=chat_id)
        answer = await stub.CreateReply(request, timeout=5, metadata=person.by_key)
        chat_id, told = answer.chat_id, [*told, (len(sent(provider)), answer.messages_left_out)]
    assert told == [*((1 + 2 * at, 0) for at in range(10)), (19, 2), (19, 4)]
    assert sent(provider)[0] == "user 2"


async def test_every_surface_says_how_much_was_left_out(
    own: Mesh, stub, person: Person, provider: FakeOpenAI
):
    said = {"messages": conversation(), "model": "small", "system_prompt": "Be brief."}
    stream = pb.StreamReplyRequest(**said)
    events = await events_of(stub.StreamReply(stream, timeout=5, metadata=person.by_key))
    assert sent(provider) == LAST_OF_NINE
    assert (events[-1].messages_left_out, events[-1].warning) == (6, "messages-left-out=6")
    generations = generations_grpc.GenerationsServiceStub(await own.channel("chat"))
    follow = generations_pb.FollowGenerationRequest(generation_id=events[0].generation_id)
    followed = [e async for e in generations.FollowGeneration(follow, metadata=person.by_key)]
    assert followed[-1].messages_left_out == 6
    speakers = {"user": "user", "assistant": "ai"}
    text = pb.StreamTextRequest(
        user_message=f"8 {LONG}",
        chat_history=[
            pb.TextTurn(role=speakers[turn.role], content=turn.content)
            for turn in conversation()[:-1]
        ],
        developer_message="Be brief.",
        model="small",
    )
    call = stub.StreamText(text, timeout=5, metadata=person.by_key)
    assert [piece async for piece in call]
    assert sent(provider) == LAST_OF_NINE
    assert dict(await call.initial_metadata())["x-khesht-warning"] == "messages-left-out=6"
    tasks = tasks_grpc.TasksServiceStub(await own.channel("chat"))
    task = await tasks.CreateTask(
        tasks_pb.CreateTaskRequest(**said), timeout=5, metadata=person.by_key
    )

    async def done() -> tasks_pb.TaskResult | None:
        got = tasks_pb.GetTaskRequest(task_id=task.task_id)
        told = await tasks.GetTask(got, timeout=5, metadata=person.by_key)
        return told.result if told.status == "completed" else None

    result = await eventually(done, within=15)
    assert sent(provider) == LAST_OF_NINE
    assert (result.messages_left_out, result.warning) == (6, "messages-left-out=6")


async def test_a_window_that_nobody_said_is_learnt_from_a_refusal(
    stub, person: Person, provider: FakeOpenAI
):
    provider.first[:] = [REFUSED]
    request = pb.StreamReplyRequest(messages=conversation(), model="unsaid")
    for _ in range(2):
        events = await events_of(stub.StreamReply(request, timeout=5, metadata=person.by_key))
        assert events[-1].done
        assert events[-1].messages_left_out >= 4
    first, again, *others = (sent(provider, at) for at in range(len(provider.requests)))
    assert len(first) == 9
    assert again[-1] == "user 8"
    assert again[0].startswith("user")
    assert len(again) < 9
    # What the provider counted is only of the first call: later ones go by the window alone.
    assert [turns[-1] for turns in others] == ["user 8"]
    assert all(len(turns) <= 5 for turns in others)


async def test_one_that_goes_on_refusing_is_asked_twice_and_believed(
    stub, person: Person, provider: FakeOpenAI
):
    provider.script = REFUSED
    request = pb.CreateReplyRequest(messages=conversation(1), model="unsaid")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateReply(request, timeout=5, metadata=person.by_key)
    assert status.reason_of(refused.value) == "PROVIDER_REFUSED"
    assert 1 <= len(provider.requests) <= 2


@pytest.mark.parametrize("model", ["small", "unsaid"])
async def test_without_truncation_the_provider_refuses(
    stub, person: Person, provider: FakeOpenAI, model: str
):
    provider.script = REFUSED
    request = pb.CreateReplyRequest(messages=conversation(), model=model, truncation="off")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateReply(request, timeout=5, metadata=person.by_key)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "maximum context length is 700" in str(refused.value.details())
    assert [len(each.body["messages"]) for each in provider.requests] == [9]


async def test_another_word_for_truncation_is_refused(stub, person: Person):
    request = pb.CreateReplyRequest(message="Hi", truncation="middle")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.CreateReply(request, timeout=5, metadata=person.by_key)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "truncation" in str(refused.value.details())


async def test_a_model_says_how_much_it_reads(stub, person: Person):
    for name, window in (("small", 700), ("unsaid", 0)):
        request = pb.GetModelRequest(model_id=name)
        told = await stub.GetModel(request, timeout=5, metadata=person.by_key)
        assert (told.context_window, told.HasField("context_window")) == (window, bool(window))


async def test_what_was_cut_is_charged_as_it_was_sent(
    stub, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(end=End.WITHOUT_USAGE)
    request = pb.CreateReplyRequest(messages=conversation(), model="small")
    await stub.CreateReply(request, timeout=5, metadata=person.by_key)
    (record,) = await records(1)
    assert record.basis == "estimated"
    assert record.prompt_tokens < 400
