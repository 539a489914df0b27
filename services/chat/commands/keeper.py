"""Keeps generations true: says that this process lives, and ends what dead ones have left."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.db import Database
from mesh.failpoints import reach
from services.chat.commands.runner import Runner
from services.chat.commands.tell import Teller
from services.chat.domain.generation import Basis, Ending, Status, estimated, interrupted
from services.chat.domain.records import Exchange
from services.chat.domain.rows import (
    Closing,
    Consumption,
    Opening,
    Segment,
    closing,
    consumption,
    exchange,
    pack_tail,
    unpack,
)
from services.chat.store import generations, runners

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("keeper")

BEAT_EVERY = 5.0
SWEEP_EVERY = 600.0
_MOST_AT_ONCE = 100
_MOST_FORGOTTEN = 1_000
_LONGEST = (1 << 31) - 1
# After a while without the database, or when all stood still, as in a machine that sleeps,
# others must be able to say that they live.
_BEATS_FIRST = 5


@dataclass(slots=True)
class Keeper:
    """One per process."""

    database: Database
    runner: Runner
    teller: Teller
    kept_for: timedelta
    _beats: int = 0
    _beat_at: datetime | None = None

    async def beat(self) -> None:
        """Says that this process lives, and looks after what others left. Every 5 seconds."""
        beats, self._beats = self._beats, 0
        before, self._beat_at = self._beat_at, self.runner.clock()
        if before is not None and self._beat_at - before > runners.SILENT:
            beats = 0
        asking = self.runner.asking
        mine = await self.database.run(lambda c: runners.seen(c, self.runner.id))
        for generation_id, asked in mine.items():
            if asked:
                self.runner.cancel(generation_id)
        self.runner.lose(asking - mine.keys())
        self._beats = beats + 1
        if self._beats >= _BEATS_FIRST:
            await self._reap()

    async def leave(self) -> None:
        """Says that this process has ended."""
        await self.database.run(lambda c: runners.gone(c, self.runner.id))

    async def sweep(self) -> None:
        """Forgets what need not be kept any longer."""
        before = self.runner.clock() - self.kept_for
        more = True
        while more:
            more = await self.database.run(
                lambda c: generations.forget(c, before, limit=_MOST_FORGOTTEN)
            )

    async def _reap(self) -> None:
        ended_at = self.runner.clock()

        reach("chat.reap")

        async def reap(connection: AsyncConnection) -> list[Consumption]:
            openings = await runners.orphans(connection, limit=_MOST_AT_ONCE)
            if not openings:
                return []
            ids = {opening.id: 0 for opening in openings}
            segments = await generations.segments_past(connection, ids)
            ends = [_interrupted(opening, segments, ended_at) for opening in openings]
            kept = {closed.id: each for _, closed, each in ends if each}
            await generations.close_all(connection, [closed for _, closed, _ in ends], kept)
            return [consumption(opening, closed) for opening, closed, _ in ends]

        for used in await self.database.run(reap):
            log.warning("a generation whose process died is ended", generation_id=str(used.id))
            self.teller.tell(used)


def _interrupted(
    opening: Opening, segments: Sequence[Segment], ended_at: datetime
) -> tuple[Opening, Closing, Exchange | None]:
    """How a generation ends whose process died: what was written down counts."""
    mine = [segment for segment in segments if segment.generation_id == opening.id]
    text = "".join(text for segment in mine for text, _ in unpack(segment.parts))
    pieces = sum(segment.pieces for segment in mine)
    died = interrupted()
    ending = Ending(
        Status.FAILED,
        died.reason,
        opening.model,
        "error",
        estimated(opening.prompt_size, pieces, Basis.CRASH),
        died,
    )
    took = int((ended_at - opening.created_at).total_seconds() * 1000)
    latency = min(max(took, 0), _LONGEST)  # Nobody may have been there for months.
    tail = pack_tail(mine[-1].seq if mine else 0, [])
    closed = closing(opening, ending, tail, ended_at=ended_at, latency_ms=latency)
    return opening, closed, exchange(opening, closed, text)
