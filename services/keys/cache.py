"""Keys and accounts in memory, so that a call to a model asks no database.

A change is told by PostgreSQL and forgets what changed at once. Should that word be
lost, nothing is believed for longer than `LIFETIME` after its reading began, and
what is in use is read again before that, all in one statement.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from mesh import errors

# Seconds. A revoked key has to be refused within 2, and for half a second services
# make calls that they spent ahead.
LIFETIME = 1.4
REFRESH_EVERY = 0.7
_LIFETIME_OF_UNKNOWN = 1.0
_KEPT_UNUSED = 10.0
# Callers wait 2 seconds for a verdict: they should hear why there is none.
_PATIENCE = 1.2
_MOST = 50_000


class Known(Protocol):
    """Something that changes are told of by its id."""

    @property
    def id(self) -> UUID:
        """Its id."""


P = TypeVar("P", bound=Hashable)
K = TypeVar("K", bound=Known)
Read = Callable[[Sequence[P]], Awaitable[Mapping[P, K]]]


@dataclass(slots=True)
class _Entry(Generic[K]):
    found: K | None
    read_at: float
    used_at: float

    def is_good(self, now: float) -> bool:
        return now - self.read_at < (LIFETIME if self.found else _LIFETIME_OF_UNKNOWN)


class Cache(Generic[P, K]):
    """Finds things by place, such as keys by digest, also those that are known not to exist."""

    def __init__(self, read: Read[P, K], clock: Callable[[], float] = time.monotonic) -> None:
        """Asks `read` for what is in some places; takes a clock in seconds."""
        self._read = read
        self._clock = clock
        self._entries: dict[P, _Entry[K]] = {}
        self._places: dict[UUID, set[P]] = {}
        self._reading: dict[P, asyncio.Task[_Entry[K]]] = {}

    async def find(self, place: P) -> K | None:
        """What is there, or None. Raises Unavailable when that can't be known."""
        now = self._clock()
        entry = self._entries.get(place)
        if entry is None or not entry.is_good(now):
            entry = await self._read_once(place)
        entry.used_at = now
        return entry.found

    def forget(self, changed: UUID) -> None:
        """Drops what is known of an id, and what is being read: it may be from before."""
        self._reading.clear()
        for place in self._places.pop(changed, ()):
            self._entries.pop(place, None)

    def clear(self) -> None:
        """Drops all: changes may have been missed."""
        self._reading.clear()
        self._places.clear()
        self._entries.clear()

    async def refresh(self) -> None:
        """Reads what is in use again, and drops the rest. Raises what reading raises."""
        now = self._clock()
        for place, entry in list(self._entries.items()):
            idle = now - entry.used_at > _KEPT_UNUSED
            if idle or (entry.found is None and not entry.is_good(now)):
                self._drop(place, entry)
        known = {place: entry for place, entry in self._entries.items() if entry.found}
        if not known:
            return
        found = await self._found(list(known))
        for place, entry in known.items():
            if self._entries.get(place) is not entry:  # It changed meanwhile.
                continue
            if place in found:
                entry.found, entry.read_at = found[place], now
            else:
                self._drop(place, entry)

    async def _read_once(self, place: P) -> _Entry[K]:
        """What is read by one task for all who wait, and goes on when one of them leaves."""
        reading = self._reading.get(place)
        if reading is None:
            reading = asyncio.create_task(self._read_entry(place))
            # Looked at here too, or asyncio complains when nobody waited till the end.
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._reading[place] = reading
        return await asyncio.shield(reading)

    async def _read_entry(self, place: P) -> _Entry[K]:
        now = self._clock()
        try:
            entry = _Entry((await self._found([place])).get(place), now, now)
        finally:
            current = self._reading.get(place) is asyncio.current_task()
            if current:
                del self._reading[place]
        if current:  # Else it changed meanwhile.
            self._keep(place, entry)
        return entry

    async def _found(self, places: Sequence[P]) -> Mapping[P, K]:
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._read(places)
        except TimeoutError:
            raise errors.Unavailable(
                "UNAVAILABLE", "the database does not answer", retry_after=1
            ) from None

    def _keep(self, place: P, entry: _Entry[K]) -> None:
        if len(self._entries) >= _MOST:
            self.clear()
        self._entries[place] = entry
        if entry.found:
            self._places.setdefault(entry.found.id, set()).add(place)

    def _drop(self, place: P, entry: _Entry[K]) -> None:
        del self._entries[place]
        if entry.found and (places := self._places.get(entry.found.id)):
            places.discard(place)
            if not places:
                del self._places[entry.found.id]
