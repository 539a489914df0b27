"""What may be spent: limits, months, and dollars as they are written."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from services.usage.domain.ledger import (
    TOTAL,
    Balance,
    Budget,
    Hold,
    Limit,
    Place,
    Verdict,
    decide,
    month_end,
    month_of,
    nano_usd,
    still_fit,
)

MONTH = "2026-11"
USER, KEY = UUID(int=2), UUID(int=1)
HOLD = Hold(UUID(int=3), USER, KEY, MONTH, 0)


def balances(**changed: Balance) -> dict[Place, Balance]:
    """Empty ones of HOLD, but for those named by scope and period."""
    return {
        place: changed.get(
            f"{place.scope}_{'total' if place.period == TOTAL else 'month'}", Balance()
        )
        for place in HOLD.places
    }


def test_balances_of_a_hold_are_in_the_order_in_which_they_are_locked():
    assert list(HOLD.places) == sorted(HOLD.places)
    assert [(place.scope, place.period) for place in HOLD.places] == [
        ("key", MONTH),
        ("key", TOTAL),
        ("user", MONTH),
        ("user", TOTAL),
    ]


@pytest.mark.parametrize(
    ("spent", "reserved", "more", "verdict"),
    [
        (0, 0, 10, Verdict.HELD),
        (0, 0, 11, Verdict.REFUSED),
        (4, 3, 3, Verdict.HELD),
        (4, 3, 4, Verdict.REFUSED),
        (10, 0, 1, Verdict.REFUSED),
        # What holds no more than before is no burden, whatever happened to the limit.
        (50, 3, 0, Verdict.HELD),
    ],
)
@pytest.mark.parametrize("at", ["key_month", "key_total", "user_month", "user_total"])
def test_what_is_spent_held_and_wanted_has_to_fit(at, spent, reserved, more, verdict):
    scope, period = at.split("_")
    budget = Budget(monthly=10) if period == "month" else Budget(total=10)
    found = balances(**{at: Balance(spent, reserved)})

    outcome = decide(HOLD, replace(HOLD, amount=more), {scope: budget}, found)

    assert outcome.verdict is verdict


@pytest.mark.parametrize(
    ("least", "held"),
    [(None, 0), (8, 0), (7, 7), (1, 7), (0, 7)],
)
def test_where_less_is_left_as_much_is_held_but_never_less_than_will_do(least, held):
    found = balances(key_month=Balance(2, 1), user_total=Balance(50, 0))
    budgets = {"key": Budget(monthly=10), "user": Budget(total=90)}

    outcome = decide(HOLD, replace(HOLD, amount=20, least=least), budgets, found)

    assert outcome.amount == held
    assert outcome.verdict is (Verdict.HELD if held else Verdict.REFUSED)


def test_of_several_limits_the_narrowest_says_how_much_is_held():
    found = balances(key_month=Balance(2, 1), user_total=Balance(88, 0))
    budgets = {"key": Budget(monthly=10), "user": Budget(total=90)}

    outcome = decide(replace(HOLD, amount=1), replace(HOLD, amount=20, least=2), budgets, found)

    assert (outcome.verdict, outcome.amount) == (Verdict.HELD, 3)


def test_of_holds_that_do_not_fit_any_more_the_last_give_way():
    held = [(replace(HOLD, amount=amount), {"user": Budget(total=10)}) for amount in (4, 4, 1, 4)]
    found = balances(user_total=Balance(1, 13))

    outcomes = still_fit(held, found)

    kept = [outcome.verdict is Verdict.HELD for outcome in outcomes]
    assert kept == [True, True, True, False]
    assert outcomes[3].limit is Limit.USER_TOTAL


def test_where_all_is_spent_no_hold_fits():
    held = [(replace(HOLD, amount=1), {"key": Budget(monthly=10)})] * 2

    outcomes = still_fit(held, balances(key_month=Balance(11, 2)))

    assert [outcome.verdict for outcome in outcomes] == [Verdict.REFUSED] * 2


@pytest.mark.parametrize(
    ("key", "user", "limit"),
    [
        (Budget(1, 1), Budget(1, 1), Limit.KEY_TOTAL),
        (Budget(1, None), Budget(1, 1), Limit.USER_TOTAL),
        (Budget(1, None), Budget(1, None), Limit.KEY_MONTHLY),
        (Budget(), Budget(1, None), Limit.USER_MONTHLY),
    ],
)
def test_a_limit_that_no_new_month_lifts_is_named_first(key, user, limit):
    outcome = decide(HOLD, replace(HOLD, amount=2), {"key": key, "user": user}, balances())

    assert outcome.limit is limit
    assert (outcome.resets_at is None) == (limit in (Limit.KEY_TOTAL, Limit.USER_TOTAL))


@pytest.mark.parametrize(
    ("budget", "period"),
    [
        (Budget(soft=1), MONTH),
        (Budget(monthly=2, soft=1), MONTH),
        (Budget(monthly=2, total=3, soft=1), MONTH),
        (Budget(total=3, soft=1), TOTAL),
    ],
)
def test_a_soft_limit_is_of_the_month_unless_only_all_time_has_a_limit(budget, period):
    assert budget.period(MONTH) == period


def test_zero_is_a_limit_and_none_is_not():
    assert Budget(monthly=0).is_set
    assert not Budget().is_set


@pytest.mark.parametrize(
    ("month", "end"),
    [
        ("2026-11", datetime(2026, 12, 1, tzinfo=UTC)),
        ("2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        ("0001-01", datetime(1, 2, 1, tzinfo=UTC)),
        ("9999-12", None),
    ],
)
def test_a_month_ends_when_the_next_begins(month, end):
    assert month_end(month) == end


def test_a_month_is_written_in_the_order_of_time():
    assert month_of(datetime(26, 3, 1, tzinfo=UTC)) == "0026-03"


@pytest.mark.parametrize(
    ("usd", "nanos"),
    [
        (0.1, 10**8),
        (0.29, 29 * 10**7),
        (1e9, 10**18),
        (1e-9, 1),
        (4e-10, 0),
        (0.1 + 0.2, 3 * 10**8),
    ],
)
def test_dollars_are_read_as_they_are_written(usd, nanos):
    assert nano_usd(usd) == nanos
