"""Hears from PostgreSQL which keys and accounts were changed, by whichever replica."""

import asyncio
from collections.abc import Callable
from typing import Never
from uuid import UUID

import psycopg
import structlog

from services.keys.store.changes import CHANGES

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("keys")

# What operators see the connection as, in pg_stat_activity.
APPLICATION_NAME = "khesht keys: changes"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


async def follow(url: str, changed: Callable[[UUID], None], missed: Callable[[], None]) -> Never:
    """Calls `changed` with the id of what changes, over a connection of its own.

    Calls `missed` whenever it begins to listen: changes before that went unheard.
    Connects again for ever, after pauses of up to 2 seconds.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            async with await connect(url, APPLICATION_NAME) as connection:
                await connection.execute(f"LISTEN {CHANGES}")
                missed()
                pause = _FIRST_PAUSE
                async for notice in connection.notifies():
                    _pass_on(notice.payload, changed)
        except psycopg.Error as error:
            log.warning("changes of keys are not heard", error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def connect(url: str, application_name: str) -> psycopg.AsyncConnection:
    """A connection of its own, for what lasts, which finds out that its other end is gone."""
    return await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        application_name=application_name,
        connect_timeout=2,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
    )


def _pass_on(payload: str, changed: Callable[[UUID], None]) -> None:
    try:
        changed(UUID(payload))
    except ValueError:  # Every role of a database may notify; ours send ids.
        log.warning("a notice about keys has no id")
