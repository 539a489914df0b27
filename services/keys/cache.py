"""Keys in memory, so that a call to a model asks no database.

A change is told by PostgreSQL and forgets the key at once. Should that word be
lost, nothing is believed for longer than `LIFETIME` after its reading began, and
keys in use are read again before that, all in one statement.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from mesh import errors
from services.keys.domain import Key

# Seconds. A revoked key has to be refused within 2, and for half a second services
# make calls that they spent ahead.
LIFETIME = 1.4
REFRESH_EVERY = 0.7
_LIFETIME_OF_UNKNOWN = 1.0
_KEPT_UNUSED = 10.0
# Callers wait 2 seconds for a verdict: they should hear why there is none.
_PATIENCE = 1.2
_MOST = 50_000

Read = Callable[[Sequence[bytes]], Awaitable[Sequence[Key]]]


@dataclass(slots=True)
class _Entry:
    key: Key | None
    read_at: float
    used_at: float

    def is_good(self, now: float) -> bool:
        return now - self.read_at < (LIFETIME if self.key else _LIFETIME_OF_UNKNOWN)


class KeyCache:
    """Finds keys by digest, also those that are known not to exist."""

    def __init__(self, read: Read, clock: Callable[[], float] = time.monotonic) -> None:
        """Asks `read` for the keys of some digests; takes a clock in seconds."""
        self._read = read
        self._clock = clock
        self._entries: dict[bytes, _Entry] = {}
        self._digests: dict[UUID, bytes] = {}
        self._reading: dict[bytes, asyncio.Task[_Entry]] = {}

    async def find(self, digest: bytes) -> Key | None:
        """The key, or None when there is none. Raises Unavailable when that can't be known."""
        now = self._clock()
        entry = self._entries.get(digest)
        if entry is None or not entry.is_good(now):
            entry = await self._read_once(digest)
        entry.used_at = now
        return entry.key

    def forget(self, key_id: UUID) -> None:
        """Drops what is known of a key, and what is being read: it may be from before."""
        self._reading.clear()
        digest = self._digests.pop(key_id, None)
        if digest is not None:
            self._entries.pop(digest, None)

    def clear(self) -> None:
        """Drops all: changes may have been missed."""
        self._reading.clear()
        self._digests.clear()
        self._entries.clear()

    async def refresh(self) -> None:
        """Reads the keys in use again, and drops the others. Raises what reading raises."""
        now = self._clock()
        for digest, entry in list(self._entries.items()):
            idle = now - entry.used_at > _KEPT_UNUSED
            if idle or (entry.key is None and not entry.is_good(now)):
                self._drop(digest, entry)
        known = {digest: entry for digest, entry in self._entries.items() if entry.key}
        if not known:
            return
        found = await self._found(list(known))
        for digest, entry in known.items():
            if self._entries.get(digest) is not entry:  # It changed meanwhile.
                continue
            if digest in found:
                entry.key, entry.read_at = found[digest], now
            else:
                self._drop(digest, entry)

    async def _read_once(self, digest: bytes) -> _Entry:
        """What is read by one task for all who wait, and goes on when one of them leaves."""
        reading = self._reading.get(digest)
        if reading is None:
            reading = asyncio.create_task(self._read_entry(digest))
            # Looked at here too, or asyncio complains when nobody waited till the end.
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._reading[digest] = reading
        return await asyncio.shield(reading)

    async def _read_entry(self, digest: bytes) -> _Entry:
        now = self._clock()
        try:
            entry = _Entry((await self._found([digest])).get(digest), now, now)
        finally:
            current = self._reading.get(digest) is asyncio.current_task()
            if current:
                del self._reading[digest]
        if current:  # Else the key changed meanwhile.
            self._keep(digest, entry)
        return entry

    async def _found(self, digests: Sequence[bytes]) -> dict[bytes, Key]:
        try:
            async with asyncio.timeout(_PATIENCE):
                return {key.digest: key for key in await self._read(digests)}
        except TimeoutError:
            raise errors.Unavailable(
                "UNAVAILABLE", "the database does not answer", retry_after=1
            ) from None

    def _keep(self, digest: bytes, entry: _Entry) -> None:
        if len(self._entries) >= _MOST:
            self.clear()
        self._entries[digest] = entry
        if entry.key:
            self._digests[entry.key.id] = digest

    def _drop(self, digest: bytes, entry: _Entry) -> None:
        del self._entries[digest]
        if entry.key:
            self._digests.pop(entry.key.id, None)
