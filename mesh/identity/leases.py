"""Calls that keys has allowed ahead, so that a busy caller's every call need not ask.

The first call of a caller asks alone. While it is asked for, others of the same
caller wait, and the next question is for all of them, and for as many more as
half a second saw before; but never for more than the limit has in a second, so
that a small limit is kept to the call.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from khesht.keys.v1 import keys_internal_service_pb2 as pb

# Seconds for which an answer holds. A revoked key can be used for so long.
HOLDS = 0.5
_MOST_CALLERS = 10_000

# Asks keys for this call and so many further ones, giving so many back.
Ask = Callable[[int, int], Awaitable[pb.AuthorizeResponse]]


@dataclass(slots=True)
class _Lease:
    """What was allowed last, and how much of it is left."""

    answer: pb.AuthorizeResponse | None = None
    expires: float = 0.0
    left: int = 0
    used: int = 0
    waiting: int = 0
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Leases:
    """What keys has allowed to callers for the moment."""

    def __init__(self) -> None:
        """Starts with nothing allowed."""
        self._leases: dict[Hashable, _Lease] = {}

    async def authorize(self, who: Hashable, ask: Ask) -> tuple[pb.AuthorizeResponse, int]:
        """The verdict on one call of `who`, and the calls left to them.

        `who` is a caller and what they call. Raises what `ask` raises.
        """
        lease = self._leases.get(who)
        if lease is None:
            self._sweep()
            lease = self._leases[who] = _Lease()
        answer = _take(lease)
        if answer is None:
            lease.waiting += 1
            try:
                async with lease.asking:
                    answer = _take(lease) or await _renew(lease, ask)
            finally:
                lease.waiting -= 1
                if lease.answer is None and not lease.waiting:
                    self._leases.pop(who, None)
        return answer, answer.rate_limit.remaining + lease.left

    def _sweep(self) -> None:
        if len(self._leases) >= _MOST_CALLERS:
            now = time.monotonic()
            kept = {w: each for w, each in self._leases.items() if each.expires > now}
            self._leases = kept


def _take(lease: _Lease) -> pb.AuthorizeResponse | None:
    """The answer that still allows a call, with the call taken from it; or None."""
    if lease.answer is None or lease.expires <= time.monotonic():
        return None
    if lease.answer.HasField("rate_limit"):
        if lease.left == 0:
            return None
        lease.left -= 1
    lease.used += 1
    return lease.answer


async def _renew(lease: _Lease, ask: Ask) -> pb.AuthorizeResponse:
    expected = 0
    if lease.answer is not None:
        expected = min(lease.used, lease.answer.rate_limit.limit // 60)
    unused, lease.left, lease.answer = lease.left, 0, None
    answer = await ask(lease.waiting - 1 + expected, unused)
    if answer.verdict == pb.VERDICT_ALLOWED:
        lease.answer, lease.left, lease.used = answer, answer.further_calls, 1
        lease.expires = time.monotonic() + HOLDS
    return answer
