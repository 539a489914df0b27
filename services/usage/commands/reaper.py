"""Gives back what was held for generations whose process died."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from services.usage.commands.ledger import Ledger

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("reaper")

LOOK_EVERY = 5.0
# After a while without usage or its database, or when all stood still, those who live must
# be able to renew first: they do so every 15 seconds.
_LOOKS_FIRST = 6
_STOOD_STILL = timedelta(seconds=2 * LOOK_EVERY)


def now() -> datetime:
    """The time that usage works by."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Reaper:
    """Each replica may have one."""

    ledger: Ledger
    clock: Callable[[], datetime] = now
    _looks: int = 0
    _looked_at: datetime | None = None

    async def look(self) -> None:
        """Closes holds that are over, if they could have been renewed. Every 5 seconds."""
        looks, self._looks = self._looks, 0
        before, self._looked_at = self._looked_at, self.clock()
        if before is not None and self._looked_at - before > _STOOD_STILL:
            looks = 0
        await self.ledger.renew([])  # Whether holds can be renewed.
        self._looks = looks + 1
        if self._looks < _LOOKS_FIRST:
            return
        if reaped := await self.ledger.reap():
            log.warning("holds that nobody renewed were released", count=reaped)
