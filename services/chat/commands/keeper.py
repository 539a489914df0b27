"""Keeps generations true: says that this process lives, and ends what dead ones have left."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.db import Database
from mesh.failpoints import reach
from mesh.patience import Patience
from services.chat.commands.runner import Runner
from services.chat.commands.tell import Teller
from services.chat.domain.generation import Ending, Status, interrupted
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
from services.chat.domain.tokens import Basis, estimated
from services.chat.store import generations, runners

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("keeper")

BEAT_EVERY = 5.0
SWEEP_EVERY = 600.0
_MOST_AT_ONCE = 100
_MOST_FORGOTTEN = 1_000
_LONGEST = (1 << 31) - 1
# As many as others need to say that they live, after an outage.
_BEATS_FIRST = 5


@dataclass(slots=True)
class Keeper:
    """One per process."""

    database: Database
    runner: Runner
    teller: Teller
    kept_for: timedelta
    _patience: Patience = field(default_factory=lambda: Patience(_BEATS_FIRST, runners.SILENT))

    async def beat(self) -> None:
        """Says that this process lives, and looks after what others left. Every 5 seconds."""
        asking = self.runner.asking
        with self._patience.look(self.runner.clock()):
            mine = await self.database.run(lambda c: runners.seen(c, self.runner.id))
        for generation_id, asked in mine.items():
            if asked:
                self.runner.cancel(generation_id)
        self.runner.lose(asking - mine.keys())
        if self._patience.is_over:
            # It is stored as running here, but does not: its caller was told that it could not
            # be opened, and PostgreSQL had opened it before it went away.
            await self._reap(mine.keys() - self.runner.running.keys())

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

    async def _reap(self, left: Set[UUID]) -> None:
        reach("chat.reap")
        orphans = await self.database.run_one(
            lambda c: runners.orphans(c, left, limit=_MOST_AT_ONCE)
        )
        # One at a time: what is wrong with one keeps no other from its end.
        for generation_id in orphans:
            if not await self._end(left, generation_id, keeps=True):
                await self._end(left, generation_id, keeps=False)

    async def _end(self, left: Set[UUID], generation_id: UUID, *, keeps: bool) -> bool:
        """Whether the orphan is ended, or needs not be; a chat gets what it wrote if it `keeps`."""
        ended_at = self.runner.clock()

        async def end(connection: AsyncConnection) -> Consumption | None:
            opening = await runners.lock_orphan(connection, left, generation_id)
            if opening is None:
                return None
            seq, tokens = await generations.written(connection, generation_id)
            closed = _interrupted(opening, seq, tokens, ended_at)
            kept = None
            if keeps and opening.question is not None:
                segments = await generations.segments_past(connection, {generation_id: 0})
                kept = exchange(opening, closed, _text(segments))
            await generations.close_all(connection, [closed], {generation_id: kept} if kept else {})
            return consumption(opening, closed)

        try:
            used = await self.database.run(end)
        except errors.Unavailable:
            raise
        except Exception as error:
            log.error(
                "a generation whose process died can't be ended",
                generation_id=str(generation_id),
                exc_info=error,
            )
            return False
        if used is not None:
            log.warning(
                "a generation whose process died is ended", generation_id=str(generation_id)
            )
            self.teller.tell(used)
        return True


def _text(segments: Sequence[Segment]) -> str:
    return "".join(text for segment in segments for text, _ in unpack(segment.parts))


def _interrupted(opening: Opening, seq: int, tokens: int, ended_at: datetime) -> Closing:
    """How a generation ends whose process died: what was written down, up to `seq`, counts."""
    died = interrupted()
    ending = Ending(
        Status.FAILED,
        died.reason,
        opening.model,
        "error",
        estimated(opening.prompt_estimate, tokens, Basis.CRASH),
        died,
    )
    took = int((ended_at - opening.created_at).total_seconds() * 1000)
    latency = min(max(took, 0), _LONGEST)  # Nobody may have been there for months.
    tail = pack_tail(seq, [])
    return closing(opening, ending, tail, ended_at=ended_at, latency_ms=latency)
