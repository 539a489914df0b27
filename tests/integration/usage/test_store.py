"""How PostgreSQL serves what is asked of usage."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from mesh import db
from mesh.local import postgres
from services.usage.domain.records import Record, Whose
from services.usage.store import ledger
from services.usage.store import records as store
from tests import harness
from tests.support import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
USERS = [uuid4() for _ in range(20)]
KEYS = {user_id: [uuid4() for _ in range(50)] for user_id in USERS}


class Planned(Exception):
    """There is a plan, and nothing was read."""


class Explained:
    """A connection that runs no query, and keeps the plan for it."""

    def __init__(self, connection):
        self.connection = connection
        self.plan = ""

    async def execute(self, query):
        dialect = self.connection.dialect
        sql = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        rows = await self.connection.execute(text(f"EXPLAIN {sql.replace(':', chr(92) + ':')}"))
        self.plan = "\n".join(row[0] for row in rows)
        raise Planned


def made(user_id, key_id=None, created_at=NOW):
    return Record(
        generation_id=uuid4(),
        request_id="request-1",
        user_id=user_id,
        key_id=key_id,
        model="echo",
        provider="echo",
        prompt_tokens=1,
        completion_tokens=1,
        prompt_price=0,
        completion_price=0,
        cost=0,
        status="completed",
        basis="provider",
        latency_ms=1,
        created_at=created_at,
    )


@pytest.fixture(scope="module")
async def database(admin_dsn):
    """A table of 5000 records, of which the planner knows."""
    records = [
        made(user_id, KEYS[user_id][number % 50], NOW - timedelta(hours=number))
        for user_id in USERS
        for number in range(250)
    ]

    async def fill(connection):
        await ledger.settle(connection, records, [])
        await connection.execute(text("ANALYZE usage_records"))

    async with db.opened(postgres.service_dsn(admin_dsn, "usage", harness.SECRET)) as opened:
        await opened.run(fill)
        yield opened


@pytest.mark.parametrize("of", ["user", "key"])
@pytest.mark.parametrize("asked", ["first page", "next page", "summary"])
async def test_lists_and_summaries_are_served_by_their_index(database, of, asked):
    user_id = USERS[0]
    whose = Whose(user_id, KEYS[user_id][0] if of == "key" else None)

    async def plan(connection):
        # A table of a test is so small that reading all of it may be cheapest.
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        await connection.execute(text("SET LOCAL enable_bitmapscan = off"))
        explained = Explained(connection)
        if asked == "summary":
            reading = store.sum_records(explained, whose, NOW - timedelta(days=1), NOW)
        else:
            after = (NOW, uuid4()) if asked == "next page" else None
            reading = store.list_records(explained, whose, after=after, limit=51)
        with pytest.raises(Planned):
            await reading
        return explained.plan

    found = await database.run(plan)

    kind = "Index Only Scan" if asked == "summary" else "Index Scan Backward"
    assert f"{kind} using usage_newest_of_{of} on usage_records" in found
    assert "Sort" not in found


async def test_batches_that_share_records_wait_for_each_other_and_not_in_a_circle(admin_dsn):
    first, last = sorted((made(uuid4()) for _ in range(2)), key=lambda each: each.generation_id)

    def somebody_waits():
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        with psycopg.connect(admin_dsn) as connection:
            return connection.execute(query).fetchone()

    async with connected(admin_dsn) as one, connected(admin_dsn) as other:
        stored = [await ledger.settle(one, [first], [])]
        adding = asyncio.create_task(ledger.settle(other, [last, first], []))
        await eventually(somebody_waits)
        stored.append(await ledger.settle(one, [last], []))
        await one.commit()
        stored.append(await adding)

    assert stored == [(1, 0), (1, 0), (0, 0)]


@asynccontextmanager
async def connected(admin_dsn):
    url = postgres.service_dsn(admin_dsn, "usage", harness.SECRET)
    engine = create_async_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    async with engine.connect() as connection:
        yield connection
    await engine.dispose()
