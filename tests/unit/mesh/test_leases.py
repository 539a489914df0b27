"""Calls allowed ahead, against the real limiter with a clock that stands still."""

import asyncio
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from mesh.identity import leases
from mesh.identity.leases import Leases
from services.keys.limiter import Limiter

WHO = UUID(int=1)


class Keys:
    """Answers as Authorize does, from a real limiter; counts what it was asked."""

    def __init__(self, limit: int, *, revoked: bool = False) -> None:
        self.limiter = Limiter(lambda: 1)
        self.limit = limit
        self.revoked = revoked
        self.asked = 0
        self.down = False

    async def ask(self, further: int, unused: int) -> pb.AuthorizeResponse:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError
        if self.revoked:
            return pb.AuthorizeResponse(verdict=pb.VERDICT_REVOKED)
        if unused:
            await self.limiter.spend(WHO, self.limit, calls=-unused)
        allowed, state = await self.limiter.spend(WHO, self.limit)
        more = min(further, state.remaining) if allowed else 0
        if more:
            _, state = await self.limiter.spend(WHO, self.limit, calls=more)
        answer = pb.AuthorizeResponse(
            verdict=pb.VERDICT_ALLOWED if allowed else pb.VERDICT_RATE_LIMITED, further_calls=more
        )
        answer.rate_limit.limit, answer.rate_limit.remaining = self.limit, state.remaining
        return answer


async def allowed_of(held: Leases, keys: Keys, calls: int) -> int:
    """How many of so many calls at once are allowed."""
    answers = await asyncio.gather(*(held.authorize("caller", keys.ask) for _ in range(calls)))
    return sum(answer.verdict == pb.VERDICT_ALLOWED for answer, _ in answers)


@settings(max_examples=60, deadline=None)
@given(
    limit=st.sampled_from([1, 2, 7, 59, 60, 61, 600, 6000]),
    rounds=st.lists(st.integers(1, 150), min_size=1, max_size=6),
)
def test_exactly_the_limit_is_allowed_however_calls_come(limit: int, rounds: list[int]):
    async def come() -> None:
        held, keys = Leases(), Keys(limit)
        allowed = [await allowed_of(held, keys, calls) for calls in rounds]
        assert sum(allowed) == min(limit, sum(rounds))

    asyncio.run(come())


@pytest.mark.parametrize("limit", [1, 7, 60, 600])
async def test_all_at_once_exactly_the_limit_is_allowed(limit: int):
    held, keys = Leases(), Keys(limit)
    assert await allowed_of(held, keys, 3 * limit) == limit
    assert await allowed_of(held, keys, 3) == 0


async def test_a_small_limit_has_nothing_taken_ahead():
    held, keys = Leases(), Keys(59)
    for _ in range(10):
        await held.authorize("caller", keys.ask)
    _, state = await keys.limiter.spend(WHO, 59, calls=0)
    assert (keys.asked, state.remaining) == (10, 49)


async def test_a_busy_caller_asks_for_many_calls_at_once():
    held, keys = Leases(), Keys(60_000)
    for _ in range(2_000):
        await held.authorize("caller", keys.ask)
    assert keys.asked < 100


async def test_what_is_left_is_told_with_what_was_taken_ahead():
    held, keys = Leases(), Keys(600)
    told = [(await held.authorize("caller", keys.ask))[1] for _ in range(50)]
    assert told == list(range(599, 549, -1))


async def test_an_answer_holds_for_half_a_second(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    held, keys = Leases(), Keys(60_000)
    for _ in range(4):
        await held.authorize("caller", keys.ask)
    keys.revoked = True  # Two more are allowed by now.
    now[0] += leases.HOLDS - 0.01
    before, _ = await held.authorize("caller", keys.ask)
    now[0] += 0.01
    after, _ = await held.authorize("caller", keys.ask)
    assert leases.HOLDS <= 0.5
    assert (before.verdict, after.verdict) == (pb.VERDICT_ALLOWED, pb.VERDICT_REVOKED)


async def test_what_was_not_used_is_given_back(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: now[0])
    held, keys = Leases(), Keys(6_000)
    for _ in range(10):
        await held.authorize("caller", keys.ask)
    now[0] += 1
    _, left = await held.authorize("caller", keys.ask)
    assert left == 6_000 - 11


async def test_callers_do_not_share():
    held, keys, others = Leases(), Keys(60_000), Keys(1, revoked=True)
    await held.authorize(("key", "model"), keys.ask)
    answer, _ = await held.authorize(("key", "other"), others.ask)
    assert answer.verdict == pb.VERDICT_REVOKED


async def test_a_refusal_is_not_held():
    held, keys = Leases(), Keys(60, revoked=True)
    refused, _ = await held.authorize("caller", keys.ask)
    keys.revoked = False
    again, _ = await held.authorize("caller", keys.ask)
    assert (refused.verdict, again.verdict) == (pb.VERDICT_REVOKED, pb.VERDICT_ALLOWED)


async def test_when_keys_does_not_answer_everybody_is_told():
    held, keys = Leases(), Keys(60)
    keys.down = True
    ended = await asyncio.gather(
        *(held.authorize("caller", keys.ask) for _ in range(5)), return_exceptions=True
    )
    assert [type(each) for each in ended] == [ConnectionError] * 5
    keys.down = False
    assert await allowed_of(held, keys, 100) == 60


async def test_who_leaves_while_keys_is_asked_harms_no_other():
    held, keys = Leases(), Keys(60)
    callers = [asyncio.create_task(held.authorize("caller", keys.ask)) for _ in range(10)]
    await asyncio.sleep(0)
    for caller in callers[:5]:
        caller.cancel()
    ended = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in ended) == 5
    assert sum(isinstance(each, tuple) for each in ended) == 5
