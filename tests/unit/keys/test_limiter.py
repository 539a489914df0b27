"""The per-minute limit, against a slow model of a bucket in exact fractions."""

from fractions import Fraction
from math import ceil, floor
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.keys.domain.decisions import RateLimit
from services.keys.limiter import MOST_OWED, Limiter

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
WHO = UUID(int=1)
LIMITS = st.one_of(st.sampled_from([1, 2, 7, 60, 99_999, 100_000]), st.integers(1, 100_000))
# Nanoseconds between calls: bursts, paces near the limit's, and long rests.
PAUSES = st.lists(
    st.one_of(st.just(0), st.integers(0, 2 * SECOND), st.integers(0, 2 * MINUTE)), max_size=150
)


class Clock:
    """Nanoseconds that pass when told."""

    def __init__(self):
        self.now = 1

    def __call__(self):
        return self.now


class Bucket:
    """Holds `limit` calls; another one drips in every minute/`limit`, in whole nanoseconds."""

    def __init__(self, limit):
        self.limit, self.level = limit, Fraction(limit)
        self.drip = ceil(Fraction(MINUTE, limit))

    def rest(self, nanoseconds):
        self.level = min(Fraction(self.limit), self.level + Fraction(nanoseconds, self.drip))

    def take(self):
        allowed = self.level >= 1
        if allowed:
            self.level -= 1
        return allowed

    def state(self):
        missing = max(1 - self.level, 0), self.limit - self.level
        wait, reset = (ceil(part * self.drip / SECOND) for part in missing)
        return RateLimit(self.limit, floor(self.level), wait, reset)


@given(LIMITS, PAUSES)
async def test_every_answer_is_that_of_the_slow_model(limit, pauses):
    clock, bucket = Clock(), Bucket(limit)
    limiter = Limiter(clock)
    for pause in pauses:
        clock.now += pause
        bucket.rest(pause)
        expected = bucket.take(), bucket.state()
        assert await limiter.spend(WHO, limit) == expected


@given(st.integers(1, 40), PAUSES)
async def test_no_time_sees_more_calls_than_the_limit_and_what_came_back_in_it(limit, pauses):
    clock = Clock()
    limiter, admitted = Limiter(clock), []
    for pause in pauses:
        clock.now += pause
        if (await limiter.spend(WHO, limit))[0]:
            admitted.append(clock.now)
    for first, start in enumerate(admitted):
        for last, end in enumerate(admitted[first:], first):
            assert last - first + 1 <= limit + Fraction((end - start) * limit, MINUTE)


@given(st.integers(1, 500))
async def test_all_of_a_limit_can_be_spent_at_once_and_no_call_more(limit):
    limiter = Limiter(Clock())

    allowed = [(await limiter.spend(WHO, limit))[0] for _ in range(2 * limit)]

    assert allowed == [True] * limit + [False] * limit


async def test_the_state_counts_down_and_says_when_to_come_again():
    clock = Clock()
    limiter = Limiter(clock)

    seen = [await limiter.spend(WHO, 3) for _ in range(4)]
    clock.now += 19 * SECOND + 1
    early = await limiter.spend(WHO, 3)
    clock.now += SECOND - 1
    in_time = await limiter.spend(WHO, 3)

    assert seen == [
        (True, RateLimit(3, remaining=2, retry_after=0, reset=20)),
        (True, RateLimit(3, remaining=1, retry_after=0, reset=40)),
        (True, RateLimit(3, remaining=0, retry_after=20, reset=60)),
        (False, RateLimit(3, remaining=0, retry_after=20, reset=60)),
    ]
    assert early == (False, RateLimit(3, remaining=0, retry_after=1, reset=41))
    assert in_time == (True, RateLimit(3, remaining=0, retry_after=20, reset=60))


@pytest.mark.parametrize("limit", [7, 11, 99_999])
async def test_no_call_comes_back_a_nanosecond_early(limit):
    clock = Clock()
    limiter = Limiter(clock)
    await limiter.spend(WHO, limit, calls=limit)
    clock.now += MINUTE // limit
    early, _ = await limiter.spend(WHO, limit)
    clock.now += 1
    in_time, _ = await limiter.spend(WHO, limit)

    assert (early, in_time) == (False, True)


async def test_asking_for_the_state_spends_nothing():
    limiter = Limiter(Clock())
    await limiter.spend(WHO, 2)

    states = [await limiter.spend(WHO, 2, calls=0) for _ in range(5)]

    assert states == [(True, RateLimit(2, remaining=1, retry_after=0, reset=30))] * 5


@pytest.mark.parametrize(
    ("before", "after", "allowed", "remaining"), [(10, 100, True, 49), (100, 10, True, 4)]
)
async def test_a_changed_limit_keeps_the_share_that_was_spent(before, after, allowed, remaining):
    limiter = Limiter(Clock())
    await limiter.spend(WHO, before, calls=before // 2)

    answer, state = await limiter.spend(WHO, after)

    assert (answer, state.remaining) == (allowed, remaining)


async def test_callers_do_not_spend_each_others_limits():
    limiter = Limiter(Clock())

    answers = [(await limiter.spend(who, 1))[0] for who in (WHO, WHO, UUID(int=2))]

    assert answers == [True, False, True]


async def test_callers_whose_limit_is_whole_again_are_forgotten():
    clock = Clock()
    limiter = Limiter(clock)
    for _ in range(20_000):
        clock.now += SECOND
        await limiter.spend(uuid4(), 60)

    assert len(limiter._whole_at) <= 1024


async def test_what_was_used_is_taken_into_debt_and_comes_back_before_anything_is_allowed():
    clock = Clock()
    limiter = Limiter(clock)

    taken = await limiter.spend(WHO, 60, 150, into_debt=True)
    asked = await limiter.spend(WHO, 60, 0)
    clock.now += 90 * SECOND
    even = await limiter.spend(WHO, 60, 0)
    clock.now += SECOND
    out = await limiter.spend(WHO, 60, 0)

    assert taken == (True, RateLimit(60, remaining=0, retry_after=91, reset=150))
    assert asked == (False, RateLimit(60, remaining=0, retry_after=91, reset=150))
    assert even == (True, RateLimit(60, remaining=0, retry_after=1, reset=60))
    assert out == (True, RateLimit(60, remaining=1, retry_after=0, reset=59))


async def test_no_debt_lasts_longer_than_a_day():
    limiter = Limiter(Clock())
    await limiter.spend(WHO, 1, 2**31, into_debt=True)

    _, state = await limiter.spend(WHO, 1, 0)

    assert state == RateLimit(1, 0, retry_after=MOST_OWED // SECOND, reset=MOST_OWED // SECOND)
