"""Hears what PostgreSQL passes on from other processes (LISTEN and NOTIFY)."""

import asyncio
from collections.abc import Callable
from typing import Never
from uuid import UUID

import psycopg
import structlog

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("notices")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


async def follow(
    url: str, channel: str, heard: Callable[[UUID], None], missed: Callable[[], None]
) -> Never:
    """Calls `heard` with each id that `channel` is notified of, over a connection of its own.

    Calls `missed` whenever it begins to listen: notices before that went unheard.
    Connects again for ever, after pauses of up to 2 seconds.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            async with await connect(url, channel) as connection:
                await connection.execute(f"LISTEN {channel}")
                missed()
                pause = _FIRST_PAUSE
                async for notice in connection.notifies():
                    _pass_on(notice.payload, channel, heard)
        except psycopg.Error as error:
            log.warning("notices are not heard", channel=channel, error=type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def connect(url: str, name: str) -> psycopg.AsyncConnection:
    """A connection that stays open, known to operators as `name` in pg_stat_activity."""
    return await psycopg.AsyncConnection.connect(
        url,
        autocommit=True,
        application_name=name,
        connect_timeout=2,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
    )


def _pass_on(payload: str, channel: str, heard: Callable[[UUID], None]) -> None:
    try:
        heard(UUID(payload))
    except ValueError:  # Every role of a database may notify; ours send ids.
        log.warning("a notice names nothing", channel=channel)
