"""Lanes: statements without SQLAlchemy, past broken connections, and rows that go in by them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    literal_column,
    select,
)

from mesh import db, errors, lane
from mesh.bulk import BulkInsert, BulkUpdate, Connection
from mesh.db import Database
from mesh.lane import Lane
from mesh.local import postgres
from tests import harness
from tests.support import eventually

ROWS = Table(
    "rows_of_a_test",
    MetaData(),
    Column("id", Uuid, primary_key=True),
    Column("name", Text),
    Column("count", Integer),
    Column("data", LargeBinary),
    Column("at", DateTime(timezone=True)),
    Column("most", BigInteger),
    Column("note", Text),
)
NAMES = ("id", "name", "count", "data", "at", "most")
INSERT = BulkInsert(ROWS, NAMES)
UPDATE = BulkUpdate(ROWS, ("count", "data"), matching=("name",), cleared=("note",))
ALL = select(*(ROWS.c[name] for name in NAMES)).order_by(ROWS.c.count)
PID = select(literal_column("pg_backend_pid()"))
SLOW = select(literal_column("pg_sleep(60)::text"))
SLEEPING = (
    " FROM pg_stat_activity"
    " WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%' AND datname = current_database()"
)
CANCEL, TERMINATE = (f"SELECT pg_{name}_backend(pid){SLEEPING}" for name in ("cancel", "terminate"))
HOSTILE = """ "quoted" \\ \\u0000 {back,slash} NULL \u2028 \U0001f600 ';-- """
Run = Callable[[Callable[[Connection], Awaitable[object]]], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    id: uuid.UUID
    name: str | None
    count: int
    data: bytes | None
    at: datetime
    most: int = 2**63 - 1


def row(count: int, name: str | None = HOSTILE, data: bytes | None = bytes(range(256))) -> Row:
    return Row(uuid.uuid4(), name, count, data, datetime.now(UTC))


@pytest.fixture(scope="module")
def dsn(admin_dsn: str) -> str:
    dsn = postgres.service_dsn(harness.new_database(admin_dsn, "lanes"), "items", harness.SECRET)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "CREATE TABLE rows_of_a_test (id uuid PRIMARY KEY, name text, count int, data bytea,"
            " at timestamptz, most bigint, note text DEFAULT 'new')"
        )
    return dsn


@pytest.fixture
async def opened(dsn: str) -> AsyncIterator[Lane]:
    async with lane.opened(dsn) as opened:
        yield opened
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM rows_of_a_test")


@pytest.fixture(params=["lane", "pool"])
async def run(request: pytest.FixtureRequest, dsn: str, opened: Lane) -> AsyncIterator[Run]:
    """What runs work on either kind of connection."""
    async with db.opened(dsn) as database:
        pooled: Database = database
        yield opened.run if request.param == "lane" else pooled.run  # type: ignore[misc]  # either


async def stored(opened: Lane) -> list[Row]:
    return [Row(*values) for values in await opened.run(lambda c: c.execute(ALL, {}))]


async def test_rows_come_back_as_they_went_in(run: Run, opened: Lane):
    rows = [row(0), row(1, None), row(2, "", b""), row(3, data=None), row(4, "\U0001f600" * 10**6)]

    assert await run(lambda c: INSERT.run(c, rows)) == 5
    assert await stored(opened) == rows
    more = row(5)
    assert await run(lambda c: INSERT.run(c, [rows[0], more])) == 1
    assert await stored(opened) == [*rows, more]


async def test_of_rows_only_those_that_match_are_changed(run: Run, opened: Lane):
    kept, changed = row(1, "a"), row(2, None)
    await run(lambda c: INSERT.run(c, [kept, changed]))
    new = Row(changed.id, None, 3, b"new", changed.at)

    ended = await run(lambda c: UPDATE.run(c, [Row(kept.id, "b", 9, None, kept.at), new]))

    assert ended == {new.id}
    assert await stored(opened) == [kept, new]


@pytest.mark.parametrize(
    ("name", "refusal"),
    [("half a \0 text", psycopg.DataError), ("half a pair: \ud800", UnicodeEncodeError)],
)
async def test_what_is_no_text_is_refused_and_the_lane_goes_on(
    opened: Lane, name: str, refusal: type[Exception]
):
    before = await opened.run(pid)
    with pytest.raises(refusal) as refused:
        await opened.run(lambda c: INSERT.run(c, [row(0), row(1, name)]))

    assert "half" not in str(refused.value)
    assert await stored(opened) == []
    assert await opened.run(pid) == before


async def pid(connection: Lane) -> int:
    ((found,),) = await connection.execute(PID, {})
    return int(found)


async def test_a_connection_that_breaks_is_replaced_and_the_work_run_again(dsn: str, opened: Lane):
    tries = []

    async def work(connection: Lane) -> int:
        tries.append(await pid(connection))
        if len(tries) == 1:
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s, 1000)", tries)
        return await pid(connection)

    last = await opened.run(work)

    first, second = tries
    assert first != second == last
    assert await opened.run(pid) == last


async def test_a_statement_amid_which_the_connection_breaks_is_run_again(dsn: str, opened: Lane):
    tries = []

    async def work(connection: Lane) -> int:
        tries.append(1)
        if len(tries) == 1:
            await connection.execute(SLOW, {})
        return await pid(connection)

    before = await opened.run(pid)
    asked = asyncio.create_task(opened.run(work))
    with psycopg.connect(dsn, autocommit=True) as other:
        await eventually(lambda: other.execute(TERMINATE).fetchone())
    assert await asked != before
    assert tries == [1, 1]


async def test_who_is_cancelled_amid_an_answer_leaves_no_broken_lane(opened: Lane):
    before = await opened.run(pid)
    asked = asyncio.create_task(opened.run(lambda c: c.execute(SLOW, {})))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asked, 0.2)

    assert await opened.run(pid) != before


async def test_a_statement_that_takes_too_long_is_not_tried_again(dsn: str, opened: Lane):
    tries = []

    async def work(connection: Lane) -> None:
        tries.append(1)
        await connection.execute(SLOW, {})

    asked = asyncio.create_task(opened.run(work))
    with psycopg.connect(dsn, autocommit=True) as other:  # Ends it as its timeout would.
        await eventually(lambda: other.execute(CANCEL).fetchone())
    with pytest.raises(errors.Unavailable):
        await asked
    assert tries == [1]
    assert await opened.run(pid)


async def test_a_database_that_is_not_there_is_unavailable():
    async with lane.opened("postgresql://nobody:x@127.0.0.1:1/none") as nowhere:
        with pytest.raises(errors.Unavailable):
            await nowhere.run(pid)


async def test_work_takes_turns_on_one_connection(opened: Lane):
    assert len(set(await asyncio.gather(*(opened.run(pid) for _ in range(5))))) == 1


async def test_a_wrong_statement_is_not_tried_again(opened: Lane):
    tries = []

    async def work(connection: Lane) -> None:
        tries.append(1)
        given = bindparam("given", type_=ARRAY(Integer))
        await connection.execute(select(given.op("/")(0)), {"given": [1]})

    with pytest.raises(psycopg.ProgrammingError):
        await opened.run(work)
    assert tries == [1]
