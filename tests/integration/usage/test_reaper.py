"""Holds that are over are given back, but not those that nobody could renew."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from mesh import errors
from services.usage.commands.ledger import Ledger
from services.usage.commands.reaper import Reaper
from services.usage.domain.ledger import Budget
from tests import harness
from tests.integration.usage.ledger import balance_of, expire, opened, wanted

BUDGET = Budget(monthly=10)


@pytest.fixture(scope="module")
def own(admin_dsn: str) -> str:
    """A database in which nobody else reaps."""
    return harness.new_database(admin_dsn, f"reaped_{uuid4().hex[:8]}")


@pytest.fixture
async def ledger(own: str) -> AsyncIterator[Ledger]:
    async with opened(own) as ledger:
        yield ledger


async def held(own: str, ledger: Ledger):
    """A hold of 10 whose lease is over."""
    hold = wanted(uuid4(), 10, uuid4())
    await ledger.hold([(hold, BUDGET)])
    expire(own, hold)
    return hold


async def settled(ledger: Ledger) -> Reaper:
    """A reaper that has looked for long enough."""
    reaper = Reaper(ledger)
    for _ in range(6):
        await reaper.look()
    return reaper


async def test_a_hold_that_is_over_is_given_back(own: str, ledger: Ledger):
    reaper = await settled(ledger)
    hold = await held(own, ledger)
    await reaper.look()
    assert balance_of(own, hold.user_id) == (0, 0)


async def test_who_starts_lets_holds_be_renewed_before_any_is_given_back(own: str, ledger: Ledger):
    hold, reaper = await held(own, ledger), Reaper(ledger)
    for _ in range(5):
        await reaper.look()
    assert balance_of(own, hold.user_id) == (0, 10)
    await ledger.renew([hold.generation_id])
    await reaper.look()
    assert balance_of(own, hold.user_id) == (0, 10)


async def test_who_stood_still_lets_holds_be_renewed_first(own: str, ledger: Ledger):
    reaper = await settled(ledger)
    hold = await held(own, ledger)
    reaper.clock = lambda: datetime.now(UTC) + timedelta(minutes=5)
    await reaper.look()
    assert balance_of(own, hold.user_id) == (0, 10)


async def test_after_a_time_in_which_nothing_could_be_written_holds_can_be_renewed_first(
    own: str, ledger: Ledger
):
    reaper = await settled(ledger)
    hold = await held(own, ledger)
    database = sql.Identifier(own.rsplit("/", 1)[1])
    alter = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format
    with psycopg.connect(own, autocommit=True) as admin:
        admin.execute(alter(database, "on"))
        try:
            async with opened(own) as reaper.ledger:
                with pytest.raises(errors.Unavailable):
                    await reaper.look()
        finally:
            admin.execute(alter(database, "off"))
    reaper.ledger = ledger
    await reaper.look()
    assert balance_of(own, hold.user_id) == (0, 10)
