"""Limits per minute that all replicas share, counted by Redis (GCRA, as in `limiter`).

Redis is asked to be quick, and is not needed: while it does not answer, each replica
counts its share of a limit by itself.
"""

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.keys.domain.decisions import RateLimit
from services.keys.limiter import MOST_OWED, Limiter, state_of, step_of

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("limits")

_TIMEOUT = 0.05
_OPEN_FOR = 2.0
_TOLD_EVERY = 10.0
# Connections. So few that a crowd waits for its turn, and a time-out means Redis.
_AT_ONCE = 8

# Kept is what the caller owes, in nanoseconds, and since when, in microseconds: both are
# whole numbers that Lua's doubles hold exactly, as they would not hold a date to the nanosecond.
_SPEND = """
local amount, whole, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('HMGET', KEYS[1], 'owed', 'at')
local owed = 0
if kept[1] then
  owed = math.max(kept[1] - math.max(now - kept[2], 0) * 1000, 0)
end
local allowed = ARGV[4] == '1' or owed + amount <= whole
if allowed and amount ~= 0 then
  owed = math.min(math.max(owed + amount, 0), most)
  redis.call('HSET', KEYS[1], 'owed', string.format('%.0f', owed), 'at', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(owed / 1000000) + 1))
end
return {allowed and 1 or 0, string.format('%.0f', owed)}
"""


class SharedCounts:
    """What Redis counts, behind a circuit breaker: after a failure it is left alone for 2 seconds."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes redis://…, and a clock in seconds. Connects when it is first asked."""
        self._redis = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT,
            socket_connect_timeout=_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            # The least to say before the first question, which has to be answered in time.
            protocol=2,
            driver_info=None,
        )
        self._script = self._redis.register_script(_SPEND)
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._failing = False
        self._asked_again_at = 0.0
        self._told_at = float("-inf")

    async def spend(
        self, key: str, amount: int, whole: int, *, into_debt: bool
    ) -> tuple[bool, int] | None:
        """Whether `amount` may be spent of `whole`, and what is owed after; all in nanoseconds.

        None when Redis does not answer within 50 ms, or did not just before.
        """
        async with self._turns:
            now = self._clock()
            if now < self._asked_again_at:
                return None
            if self._failing:  # One asks whether Redis is back; the others do not wait for it.
                self._asked_again_at = now + _OPEN_FOR
            try:
                async with asyncio.timeout(_TIMEOUT):
                    arguments = (amount, whole, MOST_OWED, int(into_debt))
                    allowed, owed = await self._script(keys=[key], args=arguments)
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                return None
        if self._failing:
            log.info("limits are shared again")
            self._failing, self._asked_again_at = False, 0.0
        return bool(allowed), int(owed)

    async def close(self) -> None:
        """Closes all connections."""
        await self._redis.aclose()

    def _failed(self, error: Exception) -> None:
        now = self._clock()
        self._failing, self._asked_again_at = True, now + _OPEN_FOR
        if now - self._told_at >= _TOLD_EVERY:
            self._told_at = now
            log.warning("limits are not shared: no Redis", error=type(error).__name__)


class SharedLimiter:
    """`Limits` of all replicas together; of this one alone while Redis does not answer."""

    def __init__(self, counts: SharedCounts, kind: str, replicas: int) -> None:
        """Takes what this limits, in one word, and how many replicas share it."""
        self._counts = counts
        self._kind = kind
        self._replicas = replicas
        self._own = Limiter()

    async def spend(
        self, who: UUID, limit: int, calls: int = 1, *, into_debt: bool = False
    ) -> tuple[bool, RateLimit]:
        """As in `Limits`."""
        step = step_of(limit)
        answer = await self._counts.spend(
            f"rl:{{{self._kind}:{who}}}", calls * step, limit * step, into_debt=into_debt
        )
        if answer is None:
            share = max(limit // self._replicas, 1)
            return await self._own.spend(who, share, calls, into_debt=into_debt)
        allowed, owed = answer
        return allowed, state_of(limit, owed)
