"""The ledger as its tests use it: on a database itself, and what an audit finds there."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID, uuid4

import psycopg

from cli.audit import audit
from mesh import db
from mesh.local import postgres
from services.usage.commands.ledger import Ledger
from services.usage.domain.ledger import Budget, Hold, Place, month_of
from services.usage.domain.records import Record
from tests import harness

NOW = datetime.now(UTC)
MONTH = month_of(NOW)
NONE = Budget()
TOKENS_PRICED = 1_000_000
"""How many tokens a price is for, in nano-dollars."""


@asynccontextmanager
async def opened(admin_dsn: str, pool_size: int = 10) -> AsyncIterator[Ledger]:
    """A ledger with a pool of its own, and nobody who reaps."""
    url = postgres.service_dsn(admin_dsn, "usage", harness.SECRET)
    async with db.opened(url, pool_size=pool_size) as database:
        yield Ledger(database)


@asynccontextmanager
async def several(admin_dsn: str, count: int) -> AsyncIterator[list[Ledger]]:
    """As many ledgers, each with a turn of its own as in a process of its own, on as many connections."""
    url = postgres.service_dsn(admin_dsn, "usage", harness.SECRET)
    async with db.opened(url, pool_size=count) as database:
        yield [Ledger(database) for _ in range(count)]


def wanted(user_id: UUID, amount: int, key_id: UUID | None = None, month: str = MONTH) -> Hold:
    """A hold for a new generation."""
    return Hold(uuid4(), user_id, key_id, month, amount)


def record_of(hold: Hold, cost: int, created_at: datetime = NOW) -> Record:
    """What the generation of `hold` used: a token each way, at prices that make up `cost`."""
    return Record(
        generation_id=hold.generation_id,
        request_id="request-1",
        user_id=hold.user_id,
        key_id=hold.key_id,
        model="echo",
        provider="echo",
        prompt_tokens=1,
        completion_tokens=1,
        prompt_price=cost * TOKENS_PRICED,
        completion_price=0,
        cost=cost,
        status="completed",
        basis="provider",
        latency_ms=1,
        created_at=created_at,
    )


def balances_of(admin_dsn: str, *scope_ids: UUID) -> dict[Place, tuple[int, int]]:
    """What is spent and reserved, of the users and keys of these ids."""
    query = (
        "SELECT scope, scope_id, period, spent, reserved FROM usage.balances"
        " WHERE scope_id = ANY(%s)"
    )
    with psycopg.connect(admin_dsn) as connection:
        rows = connection.execute(query, [list(scope_ids)]).fetchall()
    return {Place(*row[:3]): row[3:] for row in rows}


def balance_of(admin_dsn: str, scope_id: UUID, period: str = MONTH) -> tuple[int, int]:
    """What a user or key has spent and reserved in a month or in all."""
    found = {place.period: balance for place, balance in balances_of(admin_dsn, scope_id).items()}
    return found.get(period, (0, 0))


def wrong(admin_dsn: str) -> list[str]:
    """What an audit finds wrong with the ledger; generations of other tests may run for ever."""
    found = [(check.promise, line) for check, lines in audit(admin_dsn) for line in lines]
    return [f"{promise}: {line}" for promise, line in found if "runs in a process" not in promise]


def expire(admin_dsn: str, *holds: Hold) -> None:
    """Lets the leases of `holds` be over."""
    ids = [hold.generation_id for hold in holds]
    with psycopg.connect(admin_dsn) as connection:
        connection.execute(
            "UPDATE usage.holds SET expires_at = now() - interval '1 second'"
            " WHERE generation_id = ANY(%s)",
            [ids],
        )
