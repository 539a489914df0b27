"""Gives back what was held for generations whose process died."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from mesh.patience import Patience
from services.usage.commands.ledger import Ledger

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("reaper")

LOOK_EVERY = 5.0
# Holds are renewed every 15 seconds, and first of all after an outage.
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
    _patience: Patience = field(default_factory=lambda: Patience(_LOOKS_FIRST, _STOOD_STILL))

    async def look(self) -> None:
        """Closes holds that are over, if they could have been renewed. Every 5 seconds."""
        with self._patience.look(self.clock()):
            await self.ledger.renew([])  # Whether holds can be renewed.
        if not self._patience.is_over:
            return
        if reaped := await self.ledger.reap():
            log.warning("holds that nobody renewed were released", count=reaped)
