"""Limits that a real Redis counts, and what becomes of them without it."""

import asyncio
import signal
import time
from uuid import UUID, uuid4

import pytest
import structlog

from services.keys import shared_limits
from services.keys.domain.decisions import RateLimit
from services.keys.limiter import MOST_OWED, Limiter
from services.keys.shared_limits import SharedCounts, SharedLimiter
from tests.support import eventually

SECOND = 1_000_000_000
WHO = UUID(int=1)


@pytest.fixture
async def limiter(redis, patience):
    """A limiter of one of two replicas, for whom a busy machine is not a Redis that is gone."""
    counts = SharedCounts(redis.url)
    yield SharedLimiter(counts, "calls", replicas=2)
    await counts.close()


@pytest.fixture
async def hasty(redis):
    """The same with its own time-outs, once it shares."""
    counts = SharedCounts(redis.url)
    made = SharedLimiter(counts, "calls", replicas=2)
    await eventually(lambda: is_shared(redis, made))
    yield made
    await counts.close()


async def slowest(limiter, times=40):
    """The longest of some spendings by different callers, one after the other, in seconds."""
    longest = 0.0
    for _ in range(times):
        began = time.monotonic()
        await limiter.spend(uuid4(), 60)
        longest = max(longest, time.monotonic() - began)
    return longest


async def is_shared(redis, limiter):
    """Whether what is spent now is found in Redis."""
    who = uuid4()
    await limiter.spend(who, 60)
    return await redis.ask("EXISTS", f"rl:{{calls:{who}}}")


@pytest.mark.parametrize("limit", [1, 2, 60])
async def test_it_answers_as_the_limiter_of_one_process_does(limiter, limit):
    alone = Limiter(lambda: 1)
    for calls in [1] * (limit + 2) + [-1, 0, limit]:
        assert await limiter.spend(WHO, limit, calls) == await alone.spend(WHO, limit, calls)


@pytest.mark.parametrize("limit", [99_999, 100_000, 100_000_000])
async def test_all_of_a_large_limit_can_be_spent_at_once(limiter, limit):
    spent, state = await limiter.spend(WHO, limit, limit)

    assert (spent, state.remaining) == (True, 0)
    assert state.reset in (60, 61)


async def test_what_was_spent_comes_back_in_time(limiter):
    limit = 6000  # 100 in a second.
    await limiter.spend(WHO, limit, limit)

    async def some_left():
        _, state = await limiter.spend(WHO, limit, 0)
        return state.remaining >= 10

    began = time.monotonic()
    await eventually(some_left)
    assert time.monotonic() - began > 0.09


async def test_debt_is_kept_for_a_day_at_most(limiter):
    taken = await limiter.spend(WHO, 60, 150, into_debt=True)
    refused = await limiter.spend(WHO, 60, 0)
    _, most = await limiter.spend(WHO, 60, 2**31 - 1, into_debt=True)

    assert taken == (True, RateLimit(60, remaining=0, retry_after=91, reset=150))
    assert refused == (False, RateLimit(60, remaining=0, retry_after=91, reset=150))
    assert most.reset == MOST_OWED // SECOND


async def test_nothing_stays_in_redis_for_longer_than_it_counts(redis, limiter):
    await limiter.spend(WHO, 60, 30)

    left = await redis.ask("PTTL", f"rl:{{calls:{WHO}}}")
    assert 29_000 < left <= 30_001


async def test_two_replicas_share_a_limit_and_two_without_redis_do_not(redis, patience):
    counts = [SharedCounts(redis.url) for _ in range(2)]
    together = [SharedLimiter(each, "calls", 2) for each in counts]
    apart = [Limiter(), Limiter()]
    allowed = {}
    for name, replicas in (("together", together), ("apart", apart)):
        who = uuid4()
        asked = [replicas[n % 2].spend(who, 10) for n in range(40)]
        allowed[name] = sum(spent for spent, _ in await asyncio.gather(*asked))
    for each in counts:
        await each.close()

    assert allowed == {"together": 10, "apart": 20}


async def test_a_crowd_is_counted_exactly(redis, limiter):
    answers = await asyncio.gather(*(limiter.spend(WHO, 100) for _ in range(1000)))

    assert sum(spent for spent, _ in answers) == 100
    assert await is_shared(redis, limiter)


async def frozen(redis):
    redis.send(signal.SIGSTOP)


async def killed(redis):
    await redis.stop()


async def paused(redis):
    await redis.ask("CLIENT", "PAUSE", "60000")


async def full(redis):
    await redis.ask("CONFIG", "SET", "maxmemory", "1")


BROKEN = pytest.mark.parametrize("break_it", [frozen, killed, paused, full])


@BROKEN
async def test_without_redis_nothing_hangs_and_each_replica_counts_its_share(
    redis, hasty, break_it
):
    await hasty.spend(WHO, 10)
    await break_it(redis)
    with structlog.testing.capture_logs() as lines:
        longest = await slowest(hasty)
        answers = [await hasty.spend(WHO, 10) for _ in range(8)]

    assert longest < 0.1
    assert [spent for spent, _ in answers] == [True] * 5 + [False] * 3
    assert answers[0][1].limit == 5
    assert [line["event"] for line in lines] == ["limits are not shared: no Redis"]


async def test_without_the_breaker_each_call_would_wait(redis, hasty, monkeypatch):
    monkeypatch.setattr(shared_limits, "_OPEN_FOR", 0)
    await hasty.spend(WHO, 10)
    await frozen(redis)
    began = time.monotonic()
    await slowest(hasty, times=10)

    assert time.monotonic() - began > 10 * 0.05


async def test_a_crowd_that_meets_a_frozen_redis_is_not_kept(redis, hasty):
    await hasty.spend(WHO, 10)
    await frozen(redis)
    began = time.monotonic()
    await asyncio.gather(*(hasty.spend(uuid4(), 60) for _ in range(300)))

    assert time.monotonic() - began < 0.25


@BROKEN
async def test_it_recovers_by_itself(redis, limiter, break_it, monkeypatch):
    monkeypatch.setattr(shared_limits, "_OPEN_FOR", 0.2)
    await limiter.spend(WHO, 10, 10)
    await break_it(redis)
    await limiter.spend(WHO, 10)
    if break_it is killed:
        await redis.start()
    elif break_it is full:
        await redis.ask("CONFIG", "SET", "maxmemory", "0")
    elif break_it is frozen:
        redis.send(signal.SIGCONT)
    else:
        redis.send(signal.SIGKILL)
        await redis.stop()
        await redis.start()

    await eventually(lambda: is_shared(redis, limiter))
    states = [(await limiter.spend(UUID(int=5), 7))[1].remaining for _ in range(3)]
    assert states == [6, 5, 4]


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH"])
async def test_a_redis_that_forgot_costs_no_more_than_what_it_counted(redis, limiter, command):
    await limiter.spend(WHO, 10)
    await redis.ask(*command.split())

    _, state = await limiter.spend(WHO, 10)
    assert state.limit == 10
    assert await is_shared(redis, limiter)
