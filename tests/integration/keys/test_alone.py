"""Without Redis there is one process of keys on a database, and no second one."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import psycopg
import pytest
import structlog

from mesh.config import ConfigError
from mesh.local.ports import free_ports
from services.keys import alone
from tests import harness
from tests.support import eventually


def backends(dsn):
    """Those who hold the lock, or wait for it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        statement = (
            "SELECT l.granted, a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND a.application_name = %s"
            " AND a.datname = current_database()"
        )
        return connection.execute(statement, [alone.APPLICATION_NAME]).fetchall()


@pytest.fixture
async def own(mesh, admin_dsn, request):
    """A mesh on a database of its own, to start keys in without a Redis."""
    name = f"alone_{request.node.name[:40]}"
    database = await asyncio.to_thread(harness.new_database, admin_dsn, name)
    return replace(mesh, admin_dsn=database, settings={**mesh.settings, "REDIS_URL": ""})


async def test_a_second_process_is_refused_and_told_why(own, monkeypatch):
    monkeypatch.setattr(alone, "GRACE", 0.3)
    async with harness.replica(own, "keys"):
        with pytest.raises(ConfigError, match=r"^REDIS_URL: another process of keys runs on"):
            async with harness.replica(own, "keys"):
                pass


async def test_with_a_redis_to_count_together_a_second_one_starts(own, monkeypatch):
    monkeypatch.setattr(alone, "GRACE", 0.3)
    shared = replace(own, settings={**own.settings, "REDIS_URL": "redis://127.0.0.1:1"})
    async with harness.replica(shared, "keys"), harness.replica(shared, "keys") as second:
        assert second.servers["keys"]


async def test_a_second_process_that_overlaps_waits_for_the_end_of_the_first(own):
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(harness.replica(own, "keys"))
        starting = asyncio.create_task(second.enter_async_context(harness.replica(own, "keys")))
        await eventually(lambda: len(backends(own.admin_dsn)) == 2)
        waiting = not starting.done()
        await first.aclose()
        started = await asyncio.wait_for(starting, 5)

        assert waiting
        assert started.servers["keys"]


async def test_the_lock_is_taken_again_after_the_database_dropped_it(own, monkeypatch):
    monkeypatch.setattr(alone, "_PAUSE", 0.05)
    async with harness.replica(own, "keys"):
        before = backends(own.admin_dsn)
        with psycopg.connect(own.admin_dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [before[0][1]])
        after = await eventually(lambda: backends(own.admin_dsn))

    assert [granted for granted, _ in before + after] == [True, True]
    assert before != after


async def test_who_lost_the_lock_to_another_goes_on_and_says_so(admin_dsn, monkeypatch):
    monkeypatch.setattr(alone, "_PAUSE", 0.05)
    dsn = await asyncio.to_thread(harness.new_database, admin_dsn, "lost_lock")
    async with AsyncExitStack() as first, AsyncExitStack() as second:
        await first.enter_async_context(alone.alone(dsn, 0))
        waiting = asyncio.create_task(second.enter_async_context(alone.alone(dsn, 0)))
        await eventually(lambda: len(backends(dsn)) == 2)
        ((_, holder),) = [each for each in backends(dsn) if each[0]]
        monkeypatch.setattr(alone, "GRACE", 0.1)
        with (
            structlog.testing.capture_logs() as lines,
            psycopg.connect(dsn, autocommit=True) as connection,
        ):
            connection.execute("SELECT pg_terminate_backend(%s)", [holder])
            await waiting

            def told():
                return [line["event"] for line in lines if "REDIS_URL" in line["event"]]

            await eventually(told)

    assert told()[0] == "another process of keys counts limits too: set REDIS_URL"


async def test_without_a_database_it_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(alone, "GRACE", 0.2)
    (port,) = free_ports(1)

    async with asyncio.timeout(5), alone.alone(f"postgresql://127.0.0.1:{port}/none", 0):
        pass
