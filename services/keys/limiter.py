"""Limits per minute, of calls or of tokens, kept in this process (GCRA, ITU-T I.371, annex A)."""

import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from services.keys.domain.decisions import RateLimit

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
# Nobody waits longer to be out of debt.
MOST_OWED = 24 * 60 * MINUTE
_SWEPT_FROM = 1024


class Limits(Protocol):
    """Lets each caller spend `limit` at once, and one more every 60/`limit` seconds."""

    async def spend(
        self, who: UUID, limit: int, calls: int = 1, *, into_debt: bool = False
    ) -> tuple[bool, RateLimit]:
        """Whether `calls` more may be spent, and the state after. A refusal spends nothing.

        `who` is a key or an account. With no `calls` it only tells the state; with fewer
        than none it gives back what was spent and not used. `into_debt` spends what there
        is not: then it has to come back before anything else is allowed.
        """


class Limiter:
    """`Limits` of this process alone.

    All it keeps of a caller is when their limit will be whole again; whoever's
    is whole is forgotten, so it grows with the callers of one minute, and with debtors.
    Counts in whole nanoseconds: sums of fractions would lose calls.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Takes a clock that never goes back, in nanoseconds."""
        self._clock = clock
        self._whole_at: dict[UUID, int] = {}
        self._sweep_at = _SWEPT_FROM

    async def spend(
        self, who: UUID, limit: int, calls: int = 1, *, into_debt: bool = False
    ) -> tuple[bool, RateLimit]:
        """As in `Limits`."""
        now, step = self._clock(), step_of(limit)
        owed = max(self._whole_at.get(who, 0) - now, 0)
        allowed = into_debt or owed + calls * step <= step * limit
        if allowed and calls:
            owed = min(max(owed + calls * step, 0), MOST_OWED)
            self._whole_at[who] = now + owed
            self._sweep(now)
        return allowed, state_of(limit, owed)

    def _sweep(self, now: int) -> None:
        if len(self._whole_at) < self._sweep_at:
            return
        self._whole_at = {who: at for who, at in self._whole_at.items() if at > now}
        self._sweep_at = max(_SWEPT_FROM, 2 * len(self._whole_at))


def step_of(limit: int) -> int:
    """Nanoseconds in which one call of `limit` comes back, rounded up."""
    return -(-MINUTE // limit)


def state_of(limit: int, owed: int) -> RateLimit:
    """The state of a limit that is whole in `owed` nanoseconds."""
    step = step_of(limit)
    whole = step * limit
    # Debt, and a limit that was lowered, owe more than all of it.
    remaining = max(whole - owed, 0) // step
    wait = 0 if remaining else owed + step - whole
    return RateLimit(limit, remaining, _seconds(wait), _seconds(owed))


def _seconds(nanoseconds: int) -> int:
    return -(-nanoseconds // SECOND)
