"""Keeps a second process from counting the same limits by itself, by a lock in the database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Never

import psycopg
import structlog

from mesh import background, notices
from mesh.config import ConfigError

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("keys")

# What operators see the connection as, in pg_stat_activity.
APPLICATION_NAME = "khesht keys: alone"
# Seconds that a process may take to end after its lame duck, before its successor gives up.
GRACE = 30.0
_LOCK = int.from_bytes(b"keys")
_PAUSE = 1.0


@asynccontextmanager
async def alone(url: str, lame_duck: float) -> AsyncIterator[None]:
    """Meanwhile no other process is in here with the same database.

    One that is to follow waits for the end of the one before: raises ConfigError when that
    stays longer than its `lame_duck` and a grace. Where the database can't be reached for so
    long, goes in: nobody's calls are decided without it. When the connection breaks, the lock
    is taken again as soon as may be; that another got it meanwhile is a warning, and no
    reason to stop.
    """
    async with background.running(_keep(url, await _first(url, lame_duck + GRACE))):
        yield


async def _first(url: str, patience: float) -> psycopg.AsyncConnection | None:
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    while (left := end - loop.time()) > 0:
        try:
            return await _locked(url, left)
        except psycopg.errors.LockNotAvailable:
            raise ConfigError(
                "REDIS_URL: another process of keys runs on this database, and each would allow"
                " the whole of every limit; several need a Redis to count together"
            ) from None
        except psycopg.Error:
            await asyncio.sleep(min(_PAUSE, left))
    return None


async def _keep(url: str, held: psycopg.AsyncConnection | None) -> Never:
    while True:
        try:
            async with held or await _locked(url, GRACE) as connection:
                async for _ in connection.notifies():  # None comes; it ends with the connection.
                    pass
        except psycopg.errors.LockNotAvailable:
            log.warning("another process of keys counts limits too: set REDIS_URL")
        except psycopg.Error as error:
            log.warning("the lock of the only process is lost", error=type(error).__name__)
        held = None
        await asyncio.sleep(_PAUSE)


async def _locked(url: str, patience: float) -> psycopg.AsyncConnection:
    """A connection that holds the lock. Raises LockNotAvailable after `patience` seconds."""
    connection = await notices.connect(url, APPLICATION_NAME)
    try:
        await connection.execute(f"SET lock_timeout = {max(1, round(1000 * patience))}")
        await connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    except BaseException:
        await connection.close()
        raise
    return connection
