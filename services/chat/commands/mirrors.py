"""Generations that run in another process, or have ended, as they are written down."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Never
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.db import Database
from services.chat.commands.replay import Replay
from services.chat.domain.generation import Generation
from services.chat.domain.rows import Row, Segment, unpack, unpack_tail
from services.chat.store import generations

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("mirrors")

_LOOK_EVERY = 0.1
# Read at once, of up to 1 MiB each, though most have 75 ms of text.
_MOST_SEGMENTS = 64


@dataclass(slots=True)
class _Mirror:
    generation: Generation
    readers: int = 0


@dataclass(slots=True)
class Mirrors:
    """One per process: all that is followed from elsewhere is read in one go."""

    database: Database
    replay: Replay
    _followed: dict[UUID, _Mirror] = field(default_factory=dict)
    _some: asyncio.Event = field(default_factory=asyncio.Event)

    async def whole(self, row: Row) -> Generation:
        """The generation of `row` as it stands, not followed."""
        generation = Generation(row.id, row.origin, earlier=self.replay.earlier)
        while await self._read([generation]):
            pass
        return generation

    @asynccontextmanager
    async def following(self, row: Row) -> AsyncIterator[Generation]:
        """The generation of `row`, kept up to date meanwhile: about 0.1 s behind."""
        mirror = self._followed.get(row.id)
        if mirror is None:
            generation = await self.whole(row)
            # Another reader may have come first.
            mirror = self._followed.setdefault(row.id, _Mirror(generation))
        mirror.readers += 1
        self._some.set()
        try:
            yield mirror.generation
        finally:
            mirror.readers -= 1
            if not mirror.readers:
                self._followed.pop(row.id, None)

    async def look(self) -> Never:
        """Keeps all that is followed up to date."""
        while True:
            await self._some.wait()
            running = [m.generation for m in self._followed.values() if not m.generation.ending]
            if not running:
                self._some.clear()
                continue
            if not await self._look(running):
                await asyncio.sleep(_LOOK_EVERY)

    async def _look(self, followed: Sequence[Generation]) -> bool:
        """Whether there is more to read at once."""
        try:
            return await self._read(followed)
        except Exception as error:
            if len(followed) == 1 or isinstance(error, errors.Unavailable):
                log.warning("followed generations wait", error=repr(error))
                return False
            # What can't be read of one keeps no other from its readers.
            return any([await self._look([each]) for each in followed])

    async def _read(self, followed: Sequence[Generation]) -> bool:
        """Brings them up to date, or nearer to it; returns whether there may be more."""
        places = {generation.id: generation.seq for generation in followed}

        async def read(connection: AsyncConnection) -> tuple[list[Row], list[Segment]]:
            # In this order: what a row says has ended is all in the journal by then.
            rows = await generations.read(connection, list(places))
            most = max(_MOST_SEGMENTS, len(places))
            return rows, await generations.segments_past(connection, places, most=most)

        rows, segments = await self.database.run_one(read)
        by_id = {generation.id: generation for generation in followed}
        for segment in segments:
            _extend(by_id[segment.generation_id], segment)
        if len(segments) >= max(_MOST_SEGMENTS, len(places)):
            return True
        for row in rows:
            _finish(by_id[row.id], row)
        return False


def _extend(generation: Generation, segment: Segment) -> None:
    if segment.base > generation.base:
        generation.restart(segment.base)
    if segment.base == generation.base:
        pieces = unpack(segment.parts)
        known = generation.seq - (segment.seq - len(pieces))
        generation.extend(pieces[known:])
        generation.trim(segment.seq)


def _finish(generation: Generation, row: Row) -> None:
    if row.base > generation.base:
        generation.restart(row.base)
    ending = row.ending
    if ending is None or generation.ending is not None:
        return
    if row.tail:
        after, pieces = unpack_tail(row.tail)
        generation.replace(after, pieces)
    generation.warning = row.warning or ""
    generation.end(ending)
