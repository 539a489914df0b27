"""When keys were last used: noted in memory, written for all of them at once."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from uuid import UUID

WRITE_EVERY = 10.0

Write = Callable[[Mapping[UUID, datetime]], Awaitable[None]]


class LastUsed:
    """The uses since the last writing; a process that is killed forgets them."""

    def __init__(self, write: Write) -> None:
        """Gives `write` the latest use of each key."""
        self._write = write
        self._used_at: dict[UUID, datetime] = {}

    def note(self, key_id: UUID, now: datetime) -> None:
        """Remembers that a key is used."""
        self._used_at[key_id] = now

    async def flush(self) -> None:
        """Writes what was noted. What writing raises it raises, and notes it again."""
        used_at, self._used_at = self._used_at, {}
        if not used_at:
            return
        try:
            await self._write(used_at)
        except BaseException:
            self._used_at = used_at | self._used_at
            raise
