"""Gives back what was held for generations whose process died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from mesh import errors
from services.usage.commands.ledger import Ledger

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("reaper")

_EVERY = 5.0


@asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[None]:
    """A task that closes holds that are over, every 5 seconds; each replica may have one."""
    task = asyncio.create_task(_keep_reaping(ledger))
    try:
        yield
    finally:
        task.cancel()


async def _keep_reaping(ledger: Ledger) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        try:
            if reaped := await ledger.reap():
                log.warning("holds that nobody renewed were released", count=reaped)
        except errors.Unavailable:
            log.warning("holds are reaped later: the database does not answer")
        except Exception as error:
            # Whatever it was must not end the reaping for good.
            log.error("holds are reaped later", exc_info=error)
