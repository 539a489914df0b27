"""A limit on how many calls a provider has at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# How long a call waits for another to end before it is refused.
WAIT_S = 1.0


class ConcurrencyLimit:
    """Room for so many calls at once."""

    def __init__(self, calls: int) -> None:
        """Begins empty."""
        self._room = asyncio.Semaphore(calls)

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Room for one call meanwhile. Raises TimeoutError when there is none for a second."""
        async with asyncio.timeout(WAIT_S):
            await self._room.acquire()
        try:
            yield
        finally:
            self._room.release()
