"""Limits of calls per minute, kept in this process (GCRA, ITU-T I.371, annex A)."""

import time
from collections.abc import Callable
from uuid import UUID

from services.keys.domain import RateLimit

_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_SWEPT_FROM = 1024


class Limiter:
    """Lets each caller make `limit` calls at once, and one more every 60/`limit` seconds.

    All it keeps of a caller is when their limit will be whole again; whoever's
    is whole is forgotten, so it grows with the callers of one minute only.
    Counts in whole nanoseconds: sums of fractions would lose calls.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Takes a clock that never goes back, in nanoseconds."""
        self._clock = clock
        self._whole_at: dict[UUID, int] = {}
        self._sweep_at = _SWEPT_FROM

    async def spend(self, who: UUID, limit: int, calls: int = 1) -> tuple[bool, RateLimit]:
        """Whether `calls` more may be made, and the state after. A refusal spends nothing.

        `who` is a key or an account. With no `calls` it only tells the state; with
        fewer than none it gives back what was spent and not used.
        """
        now = self._clock()
        step = -(-_MINUTE // limit)
        whole = step * limit
        owed = max(self._whole_at.get(who, 0) - now, 0)
        allowed = owed + calls * step <= whole
        if allowed and calls:
            owed = max(owed + calls * step, 0)
            self._whole_at[who] = now + owed
            self._sweep(now)
        # A limit that was lowered may owe more than all of it.
        remaining = max(whole - owed, 0) // step
        wait = 0 if remaining else owed + step - whole
        return allowed, RateLimit(limit, remaining, _seconds(wait), _seconds(owed))

    def _sweep(self, now: int) -> None:
        if len(self._whole_at) < self._sweep_at:
            return
        self._whole_at = {who: at for who, at in self._whole_at.items() if at > now}
        self._sweep_at = max(_SWEPT_FROM, 2 * len(self._whole_at))


def _seconds(nanoseconds: int) -> int:
    return -(-nanoseconds // _SECOND)
