"""Shares what a process carries at once between those who call it, so that none fills it alone.

A caller may have so many calls in flight as a fraction of what is still free allows
(dynamic thresholds: A. K. Choudhury, E. L. Hahne, "Dynamic Queue Length Thresholds for
Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998). One alone
comes to `share` of all; several come to less each, and there is always room for another.
"""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mesh import errors


@dataclass(slots=True)
class Shares:
    """`capacity` calls at once, of which one caller may have `share`: more than 0, less than 1."""

    capacity: int
    share: float
    _held: Counter[Hashable] = field(default_factory=Counter)
    # All that are open now.
    in_flight: int = 0

    @contextmanager
    def one_more(self, caller: Hashable) -> Iterator[None]:
        """Counts a call of `caller` while it lasts. Raises Unavailable for one too many.

        A caller that has none in flight is refused only when all of `capacity` is taken.
        """
        held, free = self._held[caller], self.capacity - self.in_flight
        if held * (1 - self.share) >= self.share * free and (held or free <= 0):
            text = (
                f"{held} calls of this caller are open at once, which is all that it may have now"
            )
            raise errors.Unavailable("OVERLOADED", text, retry_after=1)
        self._held[caller] += 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
