"""Accounts take turns at workers and have limits of their own: many tasks of one delay no other's."""

import asyncio
from collections import Counter
from dataclasses import replace
from uuid import UUID

import grpc
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from mesh import status
from services.chat import queue
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person, new_person
from tests.support import eventually

AT_ONCE = 2
MANY = 60


@pytest.fixture
async def tasks(mesh: harness.Mesh) -> tasks_grpc.TasksServiceStub:
    return tasks_grpc.TasksServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def all_done(mesh: harness.Mesh):
    """Waits until no tasks of people wait or run, so that none is left to other tests."""
    stub = generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))

    async def wait(*people: Person) -> None:
        async def none() -> bool:
            lists = [
                await stub.ListGenerations(
                    generations_pb.ListGenerationsRequest(status=state),
                    timeout=5,
                    metadata=person.by_key,
                )
                for person in people
                for state in ("pending", "running")
            ]
            return not any(each.generations for each in lists)

        await eventually(none, within=60)

    return wait


async def create(tasks, person: Person, message: str, **more: object) -> str:
    request = tasks_pb.CreateTaskRequest(message=message, model=MODEL, store=False, **more)
    return str((await tasks.CreateTask(request, timeout=20, metadata=person.by_key)).task_id)


async def create_many(tasks, person: Person, name: str, count: int) -> None:
    await asyncio.gather(*(create(tasks, person, name) for _ in range(count)))


def worker(mesh: harness.Mesh):
    """A worker that runs two tasks at once."""
    settings = {**mesh.settings, "WORKER_CONCURRENCY": str(AT_ONCE)}
    return harness.replica(replace(mesh, settings=settings), "worker")


def order(provider: FakeOpenAI) -> list[str]:
    """Whose tasks were asked for, in this order."""
    return [request.body["messages"][-1]["content"] for request in provider.requests]


async def test_a_single_task_passes_the_many_of_another_account(
    mesh: harness.Mesh, tasks, person: Person, stranger: Person, provider: FakeOpenAI, all_done
):
    await create_many(tasks, person, "many", MANY)
    await create(tasks, stranger, "single")
    async with worker(mesh):
        await eventually(lambda: "single" in order(provider), within=30)
        assert order(provider).index("single") <= AT_ONCE
        await all_done(person, stranger)


async def test_a_single_task_passes_when_many_of_another_account_are_half_done(
    mesh: harness.Mesh, tasks, person: Person, stranger: Person, provider: FakeOpenAI, all_done
):
    provider.script = Script(pieces=("word ",) * 3, pause=0.05)
    await create_many(tasks, person, "many", MANY)
    async with worker(mesh):
        await eventually(lambda: len(provider.requests) > MANY // 3, within=30)
        before = len(provider.requests)
        await create(tasks, stranger, "single")
        await eventually(lambda: "single" in order(provider), within=30)
        # Those that begin while it is being made, and one for each that runs.
        assert order(provider).index("single") - before <= 3 * AT_ONCE
        await all_done(person, stranger)


async def test_without_turns_a_single_task_waits_for_all_others(
    mesh: harness.Mesh,
    tasks,
    person: Person,
    stranger: Person,
    provider: FakeOpenAI,
    all_done,
    monkeypatch: pytest.MonkeyPatch,
):
    put = queue.put

    async def put_as_it_came(connection: AsyncConnection, task_id: UUID, _: int) -> None:
        await put(connection, task_id, 0)

    monkeypatch.setattr(queue, "put", put_as_it_came)
    await create_many(tasks, person, "many", MANY)
    await create(tasks, stranger, "single")
    async with worker(mesh):
        await eventually(lambda: "single" in order(provider), within=60)
        assert order(provider).index("single") >= MANY - AT_ONCE
        await all_done(person, stranger)


async def test_accounts_that_have_many_take_turns(
    mesh: harness.Mesh, tasks, person: Person, stranger: Person, provider: FakeOpenAI, all_done
):
    third = await new_person(mesh)
    people = {"a": person, "b": stranger, "c": third}
    for name, count in (("a", 40), ("b", 20), ("c", 20)):
        await create_many(tasks, people[name], name, count)
    async with worker(mesh):
        await all_done(person, stranger, third)
    asked = order(provider)
    for upto in range(6, 60, 6):
        counted = Counter(asked[:upto])
        assert max(counted.values()) - min(counted[name] for name in people) <= AT_ONCE + 1
    assert set(asked[62:]) == {"a"}


async def test_who_was_idle_has_saved_nothing_up(
    mesh: harness.Mesh, tasks, person: Person, stranger: Person, provider: FakeOpenAI, all_done
):
    provider.script = Script(pieces=("word ",) * 3, pause=0.05)
    await create_many(tasks, person, "many", MANY)
    async with worker(mesh):
        await eventually(lambda: len(provider.requests) > MANY // 2, within=30)
        await create_many(tasks, stranger, "late", 10)
        await eventually(lambda: order(provider).count("late") == 10, within=30)
        asked = order(provider)
        first = asked.index("late")
        # One of each account by turns, and not all of the latecomer's first.
        assert asked[first:].count("many") >= 5
        await all_done(person, stranger)


@pytest.fixture
async def small(mesh: harness.Mesh):
    """Another chat, in which an account may have few tasks that wait, and few chats."""
    settings = {**mesh.settings, "WAITING_TASKS_LIMIT": "5", "CHATS_LIMIT": "3"}
    async with harness.replica(replace(mesh, settings=settings), "chat") as second:
        yield await second.channel("chat")


async def reason(call) -> str:
    """Why it is refused, or ""."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return status.reason_of(error)
    return ""


async def test_an_account_has_so_many_tasks_waiting_and_no_more(
    small: grpc.aio.Channel, person: Person, stranger: Person
):
    tasks = tasks_grpc.TasksServiceStub(small)
    first = await create(tasks, person, "Hi", request_id="first")
    came = await asyncio.gather(*(reason(create(tasks, person, "Hi")) for _ in range(12)))
    assert Counter(came) == {"": 4, "TOO_MANY_TASKS": 8}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await create(tasks, person, "Hi")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "10") in list(refused.value.trailing_metadata() or ())

    assert await create(tasks, person, "Hi", request_id="first") == first
    await create(tasks, stranger, "Hi")
    cancel = tasks_pb.CancelTaskRequest(task_id=first)
    await tasks.CancelTask(cancel, timeout=10, metadata=person.by_key)
    await create(tasks, person, "Hi")
    assert await reason(create(tasks, person, "Hi")) == "TOO_MANY_TASKS"


async def test_an_account_has_so_many_chats_and_no_more(
    small: grpc.aio.Channel, person: Person, stranger: Person, provider: FakeOpenAI
):
    chat = pb_grpc.ChatServiceStub(small)

    def made(by: Person):
        return chat.CreateChat(pb.CreateChatRequest(title="x"), timeout=5, metadata=by.by_key)

    def replied(**more: object):
        request = pb.CreateReplyRequest(message="Hi", model=MODEL, **more)
        return chat.CreateReply(request, timeout=10, metadata=person.by_key)

    chats = [await made(person), await made(person)]
    assert (await replied()).chat_id
    assert await reason(made(person)) == "TOO_MANY_CHATS"
    asked = len(provider.requests)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await replied()
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(provider.requests) == asked

    await replied(store=False)
    await replied(chat_id=chats[0].id)
    await made(stranger)
    await chat.DeleteChat(
        pb.DeleteChatRequest(chat_id=chats[1].id), timeout=5, metadata=person.by_key
    )
    await made(person)
    assert await reason(made(person)) == "TOO_MANY_CHATS"
