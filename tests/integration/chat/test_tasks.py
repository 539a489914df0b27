"""Background tasks: taken at once, written by workers, whatever dies meanwhile."""

import asyncio
import time
from dataclasses import replace
from typing import LiteralString

import grpc
import psycopg
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from mesh import status
from mesh.local.ports import free_ports
from mesh.server import Server
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person
from tests.support import eventually


@pytest.fixture
async def tasks(mesh: harness.Mesh) -> tasks_grpc.TasksServiceStub:
    return tasks_grpc.TasksServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def worker(mesh: harness.Mesh):
    """A worker of background tasks."""
    async with harness.replica(mesh, "worker") as running:
        yield running


async def create(tasks, person: Person, message: str = "Hi", **more: object):
    request = tasks_pb.CreateTaskRequest(message=message, model=MODEL, **more)
    return await tasks.CreateTask(request, timeout=5, metadata=person.by_key)


async def get(tasks, person: Person, task_id: str):
    request = tasks_pb.GetTaskRequest(task_id=task_id)
    return await tasks.GetTask(request, timeout=5, metadata=person.by_key)


async def cancel(tasks, person: Person, task_id: str):
    request = tasks_pb.CancelTaskRequest(task_id=task_id)
    return await tasks.CancelTask(request, timeout=10, metadata=person.by_key)


async def over(tasks, person: Person, task_id: str, within: float = 30):
    async def ended():
        task = await get(tasks, person, task_id)
        return task if task.status not in ("pending", "running") else None

    return await eventually(ended, within=within)


def jobs(admin_dsn: str, task_id: str) -> list[str]:
    """How the queue's jobs of a task are: none once it is done."""
    with psycopg.connect(admin_dsn) as connection:
        found = connection.execute(
            "SELECT status::text FROM chat.procrastinate_jobs WHERE args->>'task_id' = %s",
            [task_id],
        )
        return [row[0] for row in found]


def write(admin_dsn: str, what: LiteralString, task_id: str) -> None:
    """Changes a task behind everybody's back."""
    with psycopg.connect(admin_dsn) as connection:
        connection.execute(what, [task_id])


async def test_a_task_waits_for_a_worker_and_is_written_and_kept(
    mesh: harness.Mesh, chat, tasks, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("Hello", " there"), tokens=(3, 2))
    taken = await create(tasks, person)
    assert taken.status == "pending"
    assert (await get(tasks, person, taken.task_id)).status == "pending"
    async with harness.replica(mesh, "worker"):
        task = await over(tasks, person, taken.task_id)
    assert task.status == "completed"
    assert (task.result.message, task.result.usage.total_tokens) == ("Hello there", 5)
    listed = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=task.result.chat_id), timeout=5, metadata=person.by_key
    )
    assert [m.content for m in listed.messages] == ["Hi", "Hello there"]
    (record,) = await records(1)
    assert (record.generation_id, record.total_tokens) == (taken.task_id, 5)


async def test_a_task_is_its_callers_alone(
    tasks, person: Person, stranger: Person, provider: FakeOpenAI
):
    taken = await create(tasks, person)
    for ask in (get, cancel):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(tasks, stranger, taken.task_id)
        assert status.reason_of(refused.value) == "TASK_NOT_FOUND"
    assert (await cancel(tasks, person, taken.task_id)).status == "cancelled"


async def test_a_task_that_waits_can_be_cancelled_and_is_never_asked(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI
):
    taken = await create(tasks, person)
    assert (await cancel(tasks, person, taken.task_id)).status == "cancelled"
    async with harness.replica(mesh, "worker"):
        other = await create(tasks, person)
        await over(tasks, person, other.task_id)
    assert len(provider.requests) == 1
    assert (await get(tasks, person, taken.task_id)).status == "cancelled"


async def test_a_task_that_runs_can_be_cancelled_and_its_provider_is_left(
    tasks, worker, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    taken = await create(tasks, person)
    await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
    assert (await cancel(tasks, person, taken.task_id)).status == "cancelled"
    await eventually(lambda: provider.requests[0].closed_at)
    (record,) = await records(1)
    assert record.status == "cancelled"
    assert 0 < record.completion_tokens <= provider.requests[0].sent


async def test_a_provider_that_fails_is_asked_again_and_not_for_ever(
    tasks, worker, person: Person, provider: FakeOpenAI
):
    provider.script = Script(status=500)
    taken = await create(tasks, person)
    task = await over(tasks, person, taken.task_id)
    assert (task.status, task.error.reason) == ("failed", "PROVIDER_UNAVAILABLE")
    assert len(provider.requests) >= 3


async def test_a_task_waits_as_long_as_its_provider_wants(
    tasks, worker, person: Person, provider: FakeOpenAI
):
    provider.first[:] = [Script(status=429, headers={"Retry-After": "4"})]
    began = time.monotonic()
    task = await create(tasks, person)
    assert (await over(tasks, person, task.task_id)).status == "completed"
    assert time.monotonic() - began > 4
    assert len(provider.requests) == 2


async def test_what_a_provider_refuses_is_asked_once(
    tasks, worker, person: Person, provider: FakeOpenAI
):
    provider.script = Script(status=400, body='{"error": {"message": "no"}}')
    taken = await create(tasks, person)
    task = await over(tasks, person, taken.task_id)
    assert (task.status, task.error.reason) == ("failed", "PROVIDER_REFUSED")
    assert len(provider.requests) == 1


async def test_twins_are_one_task(tasks, worker, person: Person, provider: FakeOpenAI):
    twins = await asyncio.gather(*(create(tasks, person, request_id="twin") for _ in range(10)))
    assert len({twin.task_id for twin in twins}) == 1
    await over(tasks, person, twins[0].task_id)
    assert len(provider.requests) == 1


async def test_a_worker_that_is_stopped_hands_its_task_on(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    async with harness.replica(mesh, "worker") as first:
        taken = await create(tasks, person)
        await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
        server: Server = first.servers["worker"]
        await server.stop(lame_duck=0, grace=0)
    assert (await get(tasks, person, taken.task_id)).status == "pending"
    provider.script = Script(pieces=("done",))
    async with harness.replica(mesh, "worker"):
        task = await over(tasks, person, taken.task_id)
    assert (task.status, task.result.message) == ("completed", "done")
    assert len(await records(1)) == 1


async def handed_back(mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI):
    """A task that waits again, of which a worker that was stopped has written some."""
    provider.script = Script(pieces=("word ",) * 2000, pause=0.01)
    async with harness.replica(mesh, "worker") as first:
        taken = await create(tasks, person)
        await eventually(lambda: provider.requests and provider.requests[0].sent > 30)
        await first.servers["worker"].stop(lame_duck=0, grace=0)
    assert (await get(tasks, person, taken.task_id)).status == "pending"
    return taken


async def test_a_worker_that_is_stopped_finishes_what_it_runs_and_takes_no_more(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 50, pause=0.02)
    async with harness.replica(mesh, "worker") as first:
        taken = await create(tasks, person)
        await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
        stopping = asyncio.create_task(first.servers["worker"].stop(lame_duck=0, grace=20))
        await eventually(lambda: provider.requests[0].sent > 10)
        late = await create(tasks, person)
        await stopping
        assert (await get(tasks, person, taken.task_id)).status == "completed"
        assert (await get(tasks, person, late.task_id)).status == "pending"
        await cancel(tasks, person, late.task_id)
    assert len(provider.requests) == 1


async def test_what_was_written_of_a_task_is_paid_for_when_it_is_cancelled_waiting(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI, records
):
    taken = await handed_back(mesh, tasks, person, provider)
    assert (await cancel(tasks, person, taken.task_id)).status == "cancelled"
    (record,) = await records(1, within=15)
    assert (record.status, record.basis, record.prompt_tokens) == ("cancelled", "crash", 4)
    assert record.completion_tokens > 15


async def test_what_was_written_of_a_task_is_paid_for_when_nobody_can_go_on(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI, records
):
    taken = await handed_back(mesh, tasks, person, provider)
    (nowhere,) = free_ports(1)
    without = {**mesh.settings, "OPENAI_BASE_URL": f"http://127.0.0.1:{nowhere}/v1"}
    async with harness.replica(replace(mesh, settings=without), "worker"):
        task = await over(tasks, person, taken.task_id)
    assert (task.status, task.error.reason) == ("failed", "PROVIDER_UNAVAILABLE")
    (record,) = await records(1)
    assert (record.status, record.basis, record.prompt_tokens) == ("failed", "crash", 4)
    assert record.completion_tokens > 15


async def test_a_task_that_can_not_be_read_is_given_up_and_its_job_parked(
    mesh: harness.Mesh, tasks, person: Person, admin_dsn: str
):
    taken = await create(tasks, person)
    write(admin_dsn, "UPDATE chat.generations SET prompt = '{}' WHERE id = %s", taken.task_id)
    async with harness.replica(mesh, "worker"):
        task = await over(tasks, person, taken.task_id)
        assert (task.status, task.error.reason) == ("failed", "TASK_GAVE_UP")
        await eventually(lambda: jobs(admin_dsn, taken.task_id) == ["failed"])


async def test_a_task_is_on_the_queue_until_its_ending_is_stored(
    tasks, worker, person: Person, provider: FakeOpenAI, admin_dsn: str, records
):
    provider.script = Script(pieces=("word ",) * 50, pause=0.01)
    taken = await create(tasks, person)
    await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
    with psycopg.connect(admin_dsn) as held:
        held.execute("SELECT FROM chat.generations WHERE id = %s FOR UPDATE", [taken.task_id])
        # Were the worker killed now, nobody else would go on with a task that has no job.
        with pytest.raises(AssertionError):
            await eventually(lambda: jobs(admin_dsn, taken.task_id) != ["doing"], within=8)
    assert (await over(tasks, person, taken.task_id)).status == "completed"
    await eventually(lambda: jobs(admin_dsn, taken.task_id) == [])
    assert len(await records(1)) == 1


async def test_the_job_of_a_task_is_not_anothers_before_the_task_is_put_back(
    tasks, worker, person: Person, provider: FakeOpenAI, admin_dsn: str
):
    provider.first[:] = [Script(status=429, headers_after=1, headers={"Retry-After": "1"})]
    taken = await create(tasks, person)
    await eventually(lambda: provider.requests)
    with psycopg.connect(admin_dsn) as held:
        held.execute("SELECT FROM chat.generations WHERE id = %s FOR UPDATE", [taken.task_id])
        # Whoever took the job now would find the task with a worker that lives, and wait.
        with pytest.raises(AssertionError):
            await eventually(lambda: jobs(admin_dsn, taken.task_id) != ["doing"], within=8)
    assert (await over(tasks, person, taken.task_id)).status == "completed"
    assert len(provider.requests) == 2


async def test_a_task_that_was_cancelled_while_it_was_put_back_is_not_asked(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI, admin_dsn: str
):
    taken = await create(tasks, person)
    asked = "UPDATE chat.generations SET cancel_asked = true WHERE id = %s"
    write(admin_dsn, asked, taken.task_id)
    async with harness.replica(mesh, "worker"):
        task = await over(tasks, person, taken.task_id)
    assert task.status == "cancelled"
    assert not provider.requests


async def test_many_tasks_are_shared_by_workers(
    mesh: harness.Mesh, tasks, worker, person: Person, provider: FakeOpenAI, admin_dsn: str, records
):
    async with harness.replica(mesh, "worker"):
        taken = [await create(tasks, person, f"Hi {n}", store=False) for n in range(30)]
        for each in taken:
            assert (await over(tasks, person, each.task_id)).status == "completed"
    assert len(provider.requests) == 30
    assert len(await records(30)) == 30
    assert [jobs(admin_dsn, each.task_id) for each in taken] == [[]] * 30
