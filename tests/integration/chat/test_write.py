"""Generations are written down, past what had no answer and what can't be written."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlalchemy import update

from cli.audit import NOTICES, audit
from mesh import background, db, lane
from mesh.db import Database
from mesh.local import postgres
from services.chat import tables
from services.chat.commands.mirrors import Mirrors
from services.chat.commands.replay import Replay
from services.chat.commands.write import (
    MOST_UNWRITTEN_BYTES,
    TEXT_NOT_STORED,
    Draft,
    Writer,
)
from services.chat.domain.generation import Delta, Ending, Generation, Last, Status
from services.chat.domain.provider import Part
from services.chat.domain.rows import Closing, Consumption, Row, closing
from services.chat.domain.tokens import Basis, Tokens
from services.chat.store import generations, runners
from tests import harness, patience
from tests.integration.chat.openings import opening_of
from tests.integration.chat.streams import MODEL
from tests.support import eventually

USER = uuid.uuid4()
TOKENS = Tokens(1, 3, Basis.PROVIDER)
ENDING = Ending(Status.COMPLETED, "", MODEL, "stop", TOKENS)


@pytest.fixture
def dsn(mesh: harness.Mesh, admin_dsn: str) -> str:
    return postgres.service_dsn(admin_dsn, "chat", harness.SECRET)


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with db.opened(dsn) as opened:
        yield opened


@pytest.fixture
def told() -> list[Consumption]:
    return []


@pytest.fixture
async def writer(database: Database, dsn: str, told: list[Consumption]) -> AsyncIterator[Writer]:
    async with (
        lane.opened(dsn) as own,
        Writer(database, own, own, told.append).at_work() as writer,
    ):
        yield writer


async def begun(writer: Writer) -> Draft:
    opening = opening_of(USER)
    assert await writer.open(opening)
    # Its process lives, or it would be ended under the test.
    assert opening.runner_id is not None
    await writer.database.run(lambda c: runners.seen(c, opening.runner_id))
    earlier = Replay(writer.database).earlier
    return Draft(opening, Generation(opening.id, opening.origin, earlier=earlier))


async def end(writer: Writer, draft: Draft) -> None:
    def close(tail: bytes) -> Closing:
        began = draft.opening.created_at
        return closing(draft.opening, ENDING, tail, ended_at=began, latency_ms=1)

    async with asyncio.timeout(patience.patient(15)):
        await writer.end(draft, close, lambda _: None)


async def stored(database: Database, draft: Draft) -> tuple[Row, str, int]:
    row = await database.run_one(lambda c: generations.get(c, USER, draft.opening.id))
    assert row is not None
    whole = await Mirrors(database, Replay(database)).whole(row)
    return row, whole.text, whole.seq


async def test_a_segment_whose_writing_had_no_answer_is_not_told_twice(
    writer: Writer, database: Database
):
    draft = await begun(writer)
    draft.generation.extend([("one ", b""), ("two ", b"")])
    writer.note(draft)
    await eventually(lambda: draft.seq_written)
    draft.seq_written = 0  # As it stays when the connection breaks after the commit.
    draft.generation.append("three")
    await end(writer, draft)

    _, text, seq = await stored(database, draft)
    assert (text, seq) == ("one two three", 3)


async def test_what_cannot_be_packed_costs_no_more_than_its_own_text(
    writer: Writer, database: Database, told: list[Consumption]
):
    broken, sound = await begun(writer), await begun(writer)
    broken.generation.append("half a pair: \ud800")
    sound.generation.append("one ")
    writer.note(broken)
    writer.note(sound)
    await eventually(lambda: sound.seq_written)
    sound.generation.append("two")
    await end(writer, broken)
    await end(writer, sound)

    row, text, _ = await stored(database, broken)
    assert (row.status, row.prompt_tokens, text) == (Status.COMPLETED, TOKENS.prompt, "")
    _, text, _ = await stored(database, sound)
    assert text == "one two"
    assert [used.id for used in told] == [broken.opening.id, sound.opening.id]


def parts_of(draft: Draft) -> int:
    """How many of its parts are in memory."""
    return len(draft.generation._parts)


async def test_what_is_journalled_leaves_memory_and_is_read_again_by_who_is_behind(
    writer: Writer, database: Database
):
    draft = await begun(writer)
    sent = [Part(f"{number} ", raw=b"%06d" % number * 50) for number in range(20_000)]
    readers = [draft.generation.follow(), draft.generation.follow(10_000)]
    most = 0
    for at, part in enumerate(sent):
        draft.append(part)
        writer.note(draft)
        if draft.unwritten > MOST_UNWRITTEN_BYTES:
            await writer.room(draft, 1)
            most = max(most, parts_of(draft))
        if at == 15_000:  # One reads along for a while.
            assert (await anext(readers[1])).seq > 10_000
    await eventually(lambda: draft.seq_written == 20_000)
    assert parts_of(draft) < 2_000
    assert most < 12_000
    await end(writer, draft)
    draft.generation.end(draft.ended_as or ENDING)
    for reader, first in ((readers[0], 0),):
        got = [event async for event in reader]
        assert isinstance(got[-1], Last)
        assert b"".join(e.raw for e in got if isinstance(e, Delta)) == b"".join(
            part.raw for part in sent[first:]
        )
    assert draft.generation.text == "".join(part.text for part in sent)
    row, text, seq = await stored(database, draft)
    assert (row.status, text, seq) == (Status.COMPLETED, draft.generation.text, 20_000)
    assert len(row.tail or b"") < 2 * MOST_UNWRITTEN_BYTES


async def end_elsewhere(database: Database, draft: Draft) -> None:
    row = tables.generations.c
    ended = update(tables.generations).where(row.id == draft.opening.id)
    await database.run(lambda c: c.execute(ended.values(status=Status.FAILED)))


async def test_of_what_others_have_ended_readers_here_miss_nothing(
    writer: Writer, database: Database
):
    draft = await begun(writer)
    reader = draft.generation.follow()
    for number in range(10_000):
        draft.append(Part("", raw=b"%06d" % number * 50))
        writer.note(draft)
        await writer.room(draft, 1)
        if number == 4_000:
            await eventually(lambda: draft.seq_written == 4_001)
            await end_elsewhere(database, draft)
    await eventually(lambda: draft.seq_written == 10_000)
    assert draft.relieved
    draft.generation.end(ENDING)
    raws = [event.raw async for event in reader if isinstance(event, Delta)]
    assert b"".join(raws) == b"".join(b"%06d" % number * 50 for number in range(10_000))


async def test_a_reader_elsewhere_gets_all_of_a_long_answer(writer: Writer, database: Database):
    draft = await begun(writer)
    mirrors = Mirrors(database, Replay(database))
    row, _, _ = await stored(database, draft)
    async with background.running(mirrors.look()), mirrors.following(row) as followed:
        for number in range(20_000):
            draft.append(Part("", raw=b"%06d" % number * 50))
            writer.note(draft)
            await writer.room(draft, 1)
        await end(writer, draft)
        raws = [event.raw async for event in followed.follow() if isinstance(event, Delta)]
    assert b"".join(raws) == b"".join(b"%06d" % number * 50 for number in range(20_000))
    assert len(followed._parts) < 9_000  # The last of it, which was not journalled, and a window.


@asynccontextmanager
async def refused(admin_dsn: str, draft: Draft, when: str) -> AsyncIterator[None]:
    """Every ending of `draft` is cancelled, as one that takes too long is, while `when` is true."""
    name = f"refuse_{draft.opening.id.hex}"
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            f"CREATE FUNCTION chat.{name}() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN IF NEW.id = '{draft.opening.id}' AND NEW.ended_at IS NOT NULL AND {when}"
            " THEN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END IF; RETURN NEW; END $$"
        )
        connection.execute(
            f"CREATE TRIGGER {name} BEFORE UPDATE ON chat.generations"
            f" FOR EACH ROW EXECUTE FUNCTION chat.{name}()"
        )
        try:
            yield
        finally:
            connection.execute(f"DROP FUNCTION chat.{name} CASCADE")


async def test_an_ending_that_can_not_be_stored_holds_up_no_other_and_keeps_its_cost(
    writer: Writer, database: Database, told: list[Consumption], admin_dsn: str
):
    large = await begun(writer)
    large.append(Part("x" * 1_000_000))
    async with refused(admin_dsn, large, "length(NEW.tail) > 500000"):
        ending = asyncio.create_task(end(writer, large))
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(3):
            other = await begun(writer)
            other.append(Part("fine"))
            await end(writer, other)
            assert other.opening.id in [used.id for used in told]
        assert loop.time() - began < patience.patient(8)
        await ending
    row, text, _ = await stored(database, large)
    assert (row.status, row.warning, text) == (Status.COMPLETED, TEXT_NOT_STORED, "")
    assert large.opening.id in [used.id for used in told]
    notices = [line for check, lines in audit(admin_dsn, NOTICES) for line in lines]
    assert [line for line in notices if str(large.opening.id) in line]


async def test_an_ending_that_is_locked_by_others_is_stored_whole_when_it_is_free(
    writer: Writer, database: Database, told: list[Consumption], admin_dsn: str
):
    locked, free = await begun(writer), await begun(writer)
    locked.append(Part("whole"))
    async with refused(admin_dsn, locked, "true"):
        ending = asyncio.create_task(end(writer, locked))
        await end(writer, free)
        await eventually(lambda: locked.opening.id in writer._aside, within=10)
        assert not ending.done()
    await ending
    row, text, _ = await stored(database, locked)
    assert (row.status, row.warning, text) == (Status.COMPLETED, None, "whole")
    assert [used.id for used in told] == [free.opening.id, locked.opening.id]
