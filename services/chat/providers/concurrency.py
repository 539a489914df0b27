"""A limit on how many calls a provider has at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID
from weakref import WeakValueDictionary

# How long a call waits for another to end before it is refused.
WAIT_S = 1.0
# Of all places, the part that no single account gets.
_KEPT_FOR_OTHERS = 4


class ConcurrencyLimit:
    """Room for so many calls at once, of which one account may have three quarters."""

    def __init__(self, calls: int) -> None:
        """Begins empty. Below four calls one account may have them all."""
        self._room = asyncio.Semaphore(calls)
        self._most_of_one = calls - calls // _KEPT_FOR_OTHERS
        self._rooms: WeakValueDictionary[UUID | None, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def entered(self, caller: UUID | None) -> AsyncIterator[None]:
        """Room for one call meanwhile. Raises TimeoutError when there is none for a second."""
        own = self._rooms.get(caller)
        if own is None:
            own = self._rooms[caller] = asyncio.Semaphore(self._most_of_one)
        async with AsyncExitStack() as entered:
            async with asyncio.timeout(WAIT_S):
                for room in (own, self._room):
                    await entered.enter_async_context(room)
            yield
