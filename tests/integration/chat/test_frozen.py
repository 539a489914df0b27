"""A process that stands still for so long that others end what it ran, and wakes up."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import grpc
import psycopg
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from khesht.usage.v1 import usage_internal_service_pb2_grpc as usage_grpc
from mesh import background, db
from mesh.local import postgres
from services.chat.commands.keeper import Keeper
from services.chat.commands.mirrors import Mirrors
from services.chat.commands.replay import Replay
from services.chat.commands.runner import Run, Runner, Work
from services.chat.commands.tell import Teller
from services.chat.domain.rows import Segment, pack
from services.chat.store import generations as generations_store
from services.chat.store import runners
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.openings import opening_of
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person
from tests.support import eventually

UNUSED: Any = None


@dataclass
class Others:
    """What processes do that do not stand still."""

    admin_dsn: str
    keeper: Keeper

    async def end(self, generation_id: str) -> str:
        """How the generation ended, whose process they take for dead."""

        async def ended() -> str:
            with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
                connection.execute(
                    "UPDATE chat.runners SET seen_at = now() - interval '1 minute' WHERE id ="
                    " (SELECT runner_id FROM chat.generations WHERE id = %s)",
                    [generation_id],
                )
                for _ in range(5):
                    await self.keeper.beat()
                row = connection.execute(
                    "SELECT reason FROM chat.generations WHERE id = %s", [generation_id]
                ).fetchone()
            return row[0] if row else ""

        return await eventually(ended)


@pytest.fixture
async def others(mesh: harness.Mesh, admin_dsn: str) -> AsyncIterator[Others]:
    url = postgres.service_dsn(admin_dsn, "chat", harness.SECRET)
    usage = usage_grpc.UsageInternalServiceStub(await mesh.channel("usage", "chat"))
    async with db.opened(url) as database, Teller(database, usage).at_work() as teller:
        runner = Runner(uuid.uuid4(), UNUSED, UNUSED, UNUSED, UNUSED)
        keeper = Keeper(database, runner, teller, timedelta(days=30))
        yield Others(admin_dsn, keeper)
        await keeper.leave()


async def to_the_end(first, events) -> list:
    """All events of a stream, which may break off with an error."""
    told = [first]
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for event in events:
            told.append(event)
    return told


async def test_who_wakes_up_tells_the_truth_and_asks_no_longer(
    mesh: harness.Mesh, chat, others: Others, person: Person, provider: FakeOpenAI, records
):
    generations = generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))

    async def get():
        request = generations_pb.GetGenerationRequest(generation_id=first.generation_id)
        return await generations.GetGeneration(request, timeout=5, metadata=person.by_key)

    provider.script = Script(pieces=("word ",) * 3000, pause=0.01)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    events = aiter(chat.StreamReply(request, timeout=30, metadata=person.by_key))
    first = await anext(events)
    await eventually(lambda: provider.requests[0].sent > 20)
    assert await others.end(first.generation_id) == "INTERRUPTED"
    told = await to_the_end(first, events)
    assert told[-1].error.reason == "INTERRUPTED"
    assert provider.requests[0].sent < 2000
    await eventually(lambda: provider.requests[0].closed_at)
    made = await get()
    (record,) = await records(1)
    assert (made.status, made.reason, record.basis) == ("failed", "INTERRUPTED", "crash")
    # What it wrote after its end is no part of it.
    assert made.usage == told[-1].usage
    assert made.text == "word " * record.completion_tokens
    assert made.last_seq == record.completion_tokens + 1


async def test_the_death_of_a_process_ends_what_it_wrote_in_a_chat_deleted_meanwhile(
    chat, others: Others, person: Person, provider: FakeOpenAI, records
):
    made = await chat.CreateChat(pb.CreateChatRequest(), timeout=5, metadata=person.by_key)
    provider.script = Script(pieces=("word ",) * 3000, pause=0.01)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, chat_id=made.id)
    events = aiter(chat.StreamReply(request, timeout=30, metadata=person.by_key))
    first = await anext(events)
    await chat.DeleteChat(pb.DeleteChatRequest(chat_id=made.id), timeout=5, metadata=person.by_key)
    assert await others.end(first.generation_id) == "INTERRUPTED"
    (record,) = await records(1)
    assert record.basis == "crash"


async def test_what_ends_before_its_process_knows_is_told_as_it_ended(
    chat, others: Others, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 60, pause=0.02)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    events = aiter(chat.StreamReply(request, timeout=30, metadata=person.by_key))
    first = await anext(events)
    assert await others.end(first.generation_id) == "INTERRUPTED"
    told = await to_the_end(first, events)
    assert told[-1].error.reason == "INTERRUPTED"
    assert len(await records(1)) == 1


@pytest.mark.usefixtures("clean_up")
async def test_a_task_that_another_worker_began_anew_is_left_to_it(
    mesh: harness.Mesh, others: Others, admin_dsn: str, person: Person, provider: FakeOpenAI
):
    provider.script = Script(pieces=("word ",) * 3000, pause=0.01)
    tasks = tasks_grpc.TasksServiceStub(await mesh.channel("chat"))
    another = uuid.uuid4()
    with psycopg.connect(admin_dsn, autocommit=True) as connection:

        def only(query: LiteralString) -> Any:
            row = connection.execute(query, [taken.task_id]).fetchone()
            return row[0] if row else None

        async with harness.replica(mesh, "worker"):
            request = tasks_pb.CreateTaskRequest(message="Hi", model=MODEL)
            taken = await tasks.CreateTask(request, timeout=5, metadata=person.by_key)
            await eventually(lambda: provider.requests and provider.requests[0].sent > 20)

            async def claimed() -> runners.Claim | None:
                only(
                    "UPDATE chat.runners SET seen_at = now() - interval '1 minute' WHERE id ="
                    " (SELECT runner_id FROM chat.generations WHERE id = %s) RETURNING 1"
                )
                with contextlib.suppress(runners.StillRuns):
                    return await others.keeper.database.run(
                        lambda c: runners.claim(c, uuid.UUID(taken.task_id), another)
                    )
                return None

            claim = await eventually(claimed)
            assert claim.given_up.completion > 0
            await eventually(lambda: provider.requests[0].closed_at, within=8)
        assert provider.requests[0].sent < 2000
        journalled = "SELECT max(seq) FROM chat.journal WHERE generation_id = %s"
        assert only(journalled) < claim.base + 100
        assert only("SELECT runner_id FROM chat.generations WHERE id = %s") == another
        jobs = "SELECT count(*) FROM chat.procrastinate_jobs WHERE args->>'task_id' = %s"
        assert only(jobs) == 1


async def test_what_can_not_be_read_of_one_keeps_no_other_from_its_readers(
    others: Others, person: Person
):
    database, user_id = others.keeper.database, uuid.UUID(person.id)
    first, second = sorted((opening_of(user_id), opening_of(user_id)), key=lambda o: o.id)
    await database.run(lambda c: generations_store.open_all(c, [first, second]))
    for opening in (first, second):
        await database.run(lambda c, o=opening: runners.seen(c, o.runner_id))
    rows = await database.run_one(lambda c: generations_store.read(c, [first.id, second.id]))
    mirrors = Mirrors(database, Replay(database))
    async with contextlib.AsyncExitStack() as stack:
        followed = {row.id: await stack.enter_async_context(mirrors.following(row)) for row in rows}
        said = [
            Segment(first.id, seq=1, base=0, pieces=1, parts=b"?"),
            Segment(second.id, seq=1, base=0, pieces=1, parts=pack([("word ", b"")])),
        ]
        await database.run(lambda c: generations_store.write(c, said))
        await stack.enter_async_context(background.running(mirrors.look()))
        await eventually(lambda: followed[second.id].text == "word ")
    assert await others.end(str(first.id)) == "INTERRUPTED"


async def test_what_was_left_long_ago_is_ended_like_any_other(others: Others, person: Person):
    database, old = others.keeper.database, datetime.now(UTC) - timedelta(days=60)
    opening = replace(opening_of(uuid.UUID(person.id)), created_at=old)
    await database.run(lambda c: generations_store.open_all(c, [opening]))
    assert await others.end(str(opening.id)) == "INTERRUPTED"


async def test_what_the_release_before_began_is_charged_by_its_characters(
    others: Others, person: Person, records
):
    database = others.keeper.database
    opening = replace(opening_of(uuid.UUID(person.id)), prompt_estimate=0)
    await database.run(lambda c: generations_store.open_all(c, [opening]))
    written = [Segment(opening.id, 1, 0, 5, pack([("some text", b"")]))]
    await database.run(lambda c: generations_store.write(c, written))
    with psycopg.connect(others.admin_dsn, autocommit=True) as connection:
        characters = "UPDATE chat.generations SET prompt_size = 399 WHERE id = %s"
        connection.execute(characters, [opening.id])
    assert await others.end(str(opening.id)) == "INTERRUPTED"
    (record,) = await records(1)
    assert (record.basis, record.prompt_tokens, record.completion_tokens) == ("crash", 100, 5)


async def test_who_stood_still_does_not_take_those_for_dead_who_stood_still_with_it(
    others: Others, person: Person
):
    database, keeper = others.keeper.database, others.keeper
    opening = opening_of(uuid.UUID(person.id))
    await database.run(lambda c: generations_store.open_all(c, [opening]))

    async def status() -> str:
        (row,) = await database.run_one(lambda c: generations_store.read(c, [opening.id]))
        return row.status

    for _ in range(4):
        await keeper.beat()
    keeper.runner.clock = lambda: datetime.now(UTC) + timedelta(minutes=5)
    for _ in range(4):
        await keeper.beat()
        assert await status() == "running"
    await keeper.beat()
    assert await status() == "failed"


async def test_what_is_stored_as_running_where_it_does_not_run_is_ended(
    others: Others, person: Person, records
):
    database, keeper = others.keeper.database, others.keeper
    unanswered, runs = (
        replace(opening_of(uuid.UUID(person.id)), runner_id=keeper.runner.id) for _ in range(2)
    )
    work = Work(runs, UNUSED, UNUSED, UNUSED)
    keeper.runner.running[runs.id] = Run(keeper.runner, work)
    await database.run(lambda c: generations_store.open_all(c, [unanswered, runs]))
    for _ in range(5):
        await keeper.beat()
    found = await database.run_one(lambda c: generations_store.read(c, [unanswered.id, runs.id]))
    assert {row.id: (row.status, row.reason) for row in found} == {
        unanswered.id: ("failed", "INTERRUPTED"),
        runs.id: ("running", None),
    }
    assert [record.generation_id for record in await records(1)] == [str(unanswered.id)]


async def test_an_orphan_whose_messages_can_not_be_kept_is_ended_and_keeps_no_other_from_it(
    others: Others, person: Person, records
):
    database, user_id = others.keeper.database, uuid.UUID(person.id)
    first, second = sorted((opening_of(user_id), opening_of(user_id)), key=lambda o: o.id)
    poisoned = replace(first, chat_id=uuid.uuid4(), question="of another release")
    said = [
        Segment(opening.id, seq=1, base=0, pieces=1, parts=pack([("word ", b"")]))
        for opening in (first, second)
    ]
    await database.run(lambda c: generations_store.open_all(c, [poisoned, second]))
    await database.run(lambda c: generations_store.write(c, said))
    assert await others.end(str(second.id)) == "INTERRUPTED"
    assert await others.end(str(first.id)) == "INTERRUPTED"
    assert [record.completion_tokens for record in await records(2)] == [1, 1]
