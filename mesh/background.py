"""Work that goes on beside the calls, and ends with the service."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Never

import structlog

from mesh import errors

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("background")


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, Never]) -> AsyncIterator[None]:
    """Runs `work` meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> Never:
    """Attempts `work` again and again."""
    while True:
        await asyncio.sleep(seconds)
        await attempt(work)


async def attempt(work: Callable[[], Awaitable[None]]) -> None:
    """Does `work`, or logs why it could not be done: nobody waits for it."""
    try:
        await work()
    except errors.Unavailable as error:
        log.warning("not done this time", work=work.__qualname__, error=error.message)
    except Exception:
        log.exception("not done this time", work=work.__qualname__)
