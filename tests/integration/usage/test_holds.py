"""Holding money: what fits, what does not, and what becomes of it."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from services.usage.domain.ledger import (
    TOTAL,
    Balance,
    Budget,
    Limit,
    Outcome,
    Verdict,
    month_end,
)
from tests.integration.usage.ledger import (
    MONTH,
    NONE,
    balance_of,
    balances_of,
    expire,
    opened,
    record_of,
    wanted,
    wrong,
)

HELD = Outcome(Verdict.HELD)
NOT_NEEDED = Outcome(Verdict.NOT_NEEDED)
SETTLED = Outcome(Verdict.SETTLED)


@pytest.fixture(scope="module")
async def ledger(admin_dsn):
    async with opened(admin_dsn) as ledger:
        yield ledger


@pytest.fixture
def user_id():
    return uuid4()


@pytest.fixture
def key_id():
    return uuid4()


def refused(limit, allowed, spent, reserved, soft_exceeded=False):
    resets_at = None if limit.value[1] == TOTAL else month_end(MONTH)
    balance = Balance(spent, reserved)
    return Outcome(Verdict.REFUSED, soft_exceeded, limit, resets_at, allowed, balance)


async def test_without_any_budget_nothing_is_written(admin_dsn, ledger, user_id, key_id):
    outcomes = await ledger.hold([(wanted(user_id, 5, key_id), NONE)] * 3)

    assert outcomes == [NOT_NEEDED] * 3
    assert balances_of(admin_dsn, user_id, key_id) == {}


async def test_a_hold_counts_for_key_and_account_in_the_month_and_in_all(
    admin_dsn, ledger, user_id, key_id
):
    hold = wanted(user_id, 5, key_id)

    assert await ledger.hold([(hold, Budget(monthly=5))]) == [HELD]

    assert balances_of(admin_dsn, user_id, key_id) == dict.fromkeys(hold.places, (0, 5))
    assert len(hold.places) == 4


@pytest.mark.parametrize(
    ("of_key", "of_user", "limit"),
    [
        (Budget(monthly=9), NONE, Limit.KEY_MONTHLY),
        (Budget(total=9), NONE, Limit.KEY_TOTAL),
        (NONE, Budget(monthly=9), Limit.USER_MONTHLY),
        (NONE, Budget(total=9), Limit.USER_TOTAL),
        (Budget(monthly=9), Budget(total=9), Limit.USER_TOTAL),
        (Budget(monthly=9), Budget(monthly=9), Limit.KEY_MONTHLY),
        (Budget(monthly=9), Budget(monthly=10), Limit.KEY_MONTHLY),
    ],
)
async def test_what_does_not_fit_is_refused_by_the_limit_that_it_is_over(
    admin_dsn, ledger, user_id, key_id, of_key, of_user, limit
):
    await ledger.replace_budget(user_id, of_user)
    await ledger.record([record_of(wanted(user_id, 0, key_id), 3)])
    asked = [(wanted(user_id, 4, key_id), of_key), (wanted(user_id, 3, key_id), of_key)]

    assert await ledger.hold(asked) == [HELD, refused(limit, 9, 3, 4)]
    assert await ledger.hold([(wanted(user_id, 2, key_id), of_key)]) == [HELD]

    assert balance_of(admin_dsn, user_id) == balance_of(admin_dsn, key_id) == (3, 6)
    assert wrong(admin_dsn) == []


async def test_a_refused_hold_takes_no_other_of_its_batch_with_it(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=10))
    amounts = (4, 11, 4, 3, 2)

    outcomes = await ledger.hold([(wanted(user_id, amount), NONE) for amount in amounts])

    verdicts = [outcome.verdict is Verdict.HELD for outcome in outcomes]
    assert verdicts == [True, False, True, False, True]
    assert balance_of(admin_dsn, user_id) == (0, 10)


async def test_a_key_that_is_over_leaves_the_account_to_others(admin_dsn, ledger, user_id, key_id):
    await ledger.replace_budget(user_id, Budget(total=10))
    asked = [
        (wanted(user_id, 6, key_id), Budget(monthly=5)),
        (wanted(user_id, 10), NONE),
    ]

    outcomes = await ledger.hold(asked)

    assert outcomes == [refused(Limit.KEY_MONTHLY, 5, 0, 0), HELD]
    assert balance_of(admin_dsn, key_id) == (0, 0)


async def test_asking_again_with_the_same_or_less_changes_nothing(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=10))
    hold = wanted(user_id, 10)
    less = replace(hold, amount=1)

    outcomes = await ledger.hold([(hold, NONE), (hold, NONE)])
    outcomes += await ledger.hold([(less, NONE)])
    outcomes += await ledger.hold([(hold, NONE)])

    assert outcomes == [HELD] * 4
    assert balance_of(admin_dsn, user_id) == (0, 10)


async def test_more_is_held_where_it_fits_and_else_what_was_held_stays(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(total=10))
    hold = wanted(user_id, 4)

    def up_to(amount):
        return [(replace(hold, amount=amount), NONE)]

    assert await ledger.hold([(hold, NONE)]) == [HELD]
    assert await ledger.hold(up_to(10)) == [HELD]
    assert await ledger.hold(up_to(11)) == [refused(Limit.USER_TOTAL, 10, 0, 10)]

    assert balance_of(admin_dsn, user_id, TOTAL) == (0, 10)
    assert await ledger.release([hold.generation_id]) == 1
    assert balance_of(admin_dsn, user_id, TOTAL) == (0, 0)
    assert wrong(admin_dsn) == []


async def test_a_budget_that_is_set_later_counts_what_was_spent_before(ledger, user_id):
    await ledger.record([record_of(wanted(user_id, 0), 8)])
    await ledger.replace_budget(user_id, Budget(monthly=10))

    outcomes = await ledger.hold([(wanted(user_id, 3), NONE), (wanted(user_id, 2), NONE)])

    assert outcomes == [refused(Limit.USER_MONTHLY, 10, 8, 0), HELD]


async def test_a_budget_that_is_lifted_holds_nobody_up(ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=1))
    await ledger.replace_budget(user_id, NONE)

    assert await ledger.hold([(wanted(user_id, 100), NONE)]) == [NOT_NEEDED]


@pytest.mark.parametrize(
    ("budget", "warned"),
    [
        (Budget(soft=5), False),
        (Budget(soft=0), True),
        (Budget(monthly=100, soft=5), False),
        (Budget(total=100, soft=5), True),
        (Budget(total=100, soft=6), False),
        (Budget(monthly=100, total=100, soft=5), False),
    ],
)
async def test_a_soft_limit_warns_and_refuses_nothing(ledger, user_id, budget, warned):
    before = datetime(2020, 1, 31, tzinfo=UTC)
    await ledger.record([record_of(wanted(user_id, 0), 5, before)])
    await ledger.replace_budget(user_id, budget)

    outcomes = await ledger.hold([(wanted(user_id, 4), NONE), (wanted(user_id, 3), NONE)])

    assert outcomes == [Outcome(Verdict.HELD, warned)] * 2


async def test_months_are_apart_and_a_new_one_has_room(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=10))
    old = wanted(user_id, 10, month="2025-12")
    new = wanted(user_id, 10, month="2026-01")
    third = wanted(user_id, 1, month="2025-12")

    outcomes = await ledger.hold([(old, NONE), (new, NONE), (third, NONE)])
    # It began before midnight and ended after.
    await ledger.record([record_of(old, 7, datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC))])

    assert [outcome.verdict for outcome in outcomes[:2]] == [Verdict.HELD] * 2
    assert outcomes[2].resets_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert balance_of(admin_dsn, user_id, "2025-12") == (7, 0)
    assert balance_of(admin_dsn, user_id, "2026-01") == (0, 10)
    assert balance_of(admin_dsn, user_id, TOTAL) == (7, 10)
    assert wrong(admin_dsn) == []


async def test_what_is_held_is_given_back_in_the_month_it_was_taken_from(
    admin_dsn, ledger, user_id
):
    await ledger.replace_budget(user_id, Budget(monthly=10))
    hold = wanted(user_id, 10, month="2025-12")
    await ledger.hold([(hold, NONE)])

    await ledger.record([record_of(hold, 7, datetime(2026, 1, 1, tzinfo=UTC))])

    assert balance_of(admin_dsn, user_id, "2025-12") == (0, 0)
    assert balance_of(admin_dsn, user_id, "2026-01") == (7, 0)
    assert wrong(admin_dsn) == []


async def test_a_settled_generation_holds_nothing_any_more(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=10))
    hold = wanted(user_id, 10)
    await ledger.hold([(hold, NONE)])
    await ledger.record([record_of(hold, 3)])

    other = wanted(user_id, 7)
    assert await ledger.hold([(hold, NONE), (other, NONE)]) == [SETTLED, HELD]
    assert await ledger.hold([(hold, NONE)]) == [SETTLED]

    assert balance_of(admin_dsn, user_id) == (3, 7)


async def test_a_generation_costs_the_same_with_a_hold_without_and_after_it_was_reaped(
    admin_dsn, ledger, user_id
):
    await ledger.replace_budget(user_id, Budget(monthly=100))
    kept, reaped, never = (wanted(user_id, 10) for _ in range(3))
    await ledger.hold([(kept, NONE), (reaped, NONE)])
    expire(admin_dsn, reaped)
    await ledger.reap()
    assert balance_of(admin_dsn, user_id) == (0, 10)

    for _ in range(2):
        await ledger.record([record_of(hold, 3) for hold in (kept, reaped, never)])

    assert balance_of(admin_dsn, user_id) == (9, 0)
    assert wrong(admin_dsn) == []


async def test_a_hold_lives_while_it_is_renewed_and_else_ends(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=100))
    renewed, dead, never = (wanted(user_id, 10) for _ in range(3))
    await ledger.hold([(renewed, NONE), (dead, NONE)])
    expire(admin_dsn, renewed, dead)

    ids = [never.generation_id, renewed.generation_id]
    assert await ledger.renew(ids) == [never.generation_id]
    # Nobody has reaped it yet: the money of the dead is stuck until somebody does.
    assert balance_of(admin_dsn, user_id) == (0, 20)
    await ledger.reap()

    assert balance_of(admin_dsn, user_id) == (0, 10)
    assert await ledger.renew([dead.generation_id]) == [dead.generation_id]


async def test_releasing_twice_gives_back_once(admin_dsn, ledger, user_id):
    await ledger.replace_budget(user_id, Budget(monthly=100))
    one, other = wanted(user_id, 10), wanted(user_id, 20)
    await ledger.hold([(one, NONE), (other, NONE)])

    assert [await ledger.release([one.generation_id]) for _ in range(2)] == [1, 0]

    assert balance_of(admin_dsn, user_id) == (0, 20)
