"""Generations are written down, past what had no answer and what can't be written."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from mesh import db, lane
from mesh.db import Database
from mesh.local import postgres
from services.chat.commands.mirrors import Mirrors
from services.chat.commands.replay import Replay
from services.chat.commands.write import Draft, Writer
from services.chat.domain.generation import Ending, Generation, Status
from services.chat.domain.rows import Closing, Consumption, Row, closing
from services.chat.domain.tokens import Basis, Tokens
from services.chat.store import generations
from tests import harness
from tests.integration.chat.openings import opening_of
from tests.integration.chat.streams import MODEL
from tests.support import eventually

USER = uuid.uuid4()
TOKENS = Tokens(1, 3, Basis.PROVIDER)


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
    return Draft(opening, Generation(opening.id, opening.origin))


async def end(writer: Writer, draft: Draft) -> None:
    def close(tail: bytes) -> Closing:
        ending = Ending(Status.COMPLETED, "", MODEL, "stop", TOKENS)
        began = draft.opening.created_at
        return closing(draft.opening, ending, tail, ended_at=began, latency_ms=1)

    async with asyncio.timeout(5):
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
