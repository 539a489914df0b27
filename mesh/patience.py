"""Who takes others for dead must have been awake for a while itself."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(slots=True)
class Patience:
    """Looks in a row, `needed` of them, with no more than `longest` between two.

    After a while without the database, or when all stood still, as in a machine that
    sleeps, those who live must be able to say so before they are judged.
    """

    needed: int
    longest: timedelta
    _looks: int = 0
    _looked_at: datetime | None = None

    @contextlib.contextmanager
    def look(self, at: datetime) -> Iterator[None]:
        """One look, which counts unless what is done meanwhile raises."""
        looks, self._looks = self._looks, 0
        before, self._looked_at = self._looked_at, at
        if before is not None and at - before > self.longest:
            looks = 0
        yield
        self._looks = looks + 1

    @property
    def is_over(self) -> bool:
        """Whether others may be judged now."""
        return self._looks >= self.needed
