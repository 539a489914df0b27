"""What may be spent, and whether one more hold fits. Money is in nano-USD."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import MAXYEAR, UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

TOTAL = "total"
_NANOS = 1_000_000_000


class Place(NamedTuple):
    """Whose balance, and of which time. In their order balances are locked."""

    scope: str  # "key" or "user"
    scope_id: UUID
    period: str  # A month of UTC as "2026-11", or TOTAL.


@dataclass(frozen=True, slots=True)
class Balance:
    """What is spent, and what generations that run hold besides."""

    spent: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of a key or an account; None does not limit."""

    monthly: int | None = None
    total: int | None = None
    soft: int | None = None

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.monthly, self.total, self.soft))

    def period(self, month: str) -> str:
        """What `soft` is of: the month, or all time where only that has a limit."""
        return TOTAL if self.monthly is None and self.total is not None else month


@dataclass(frozen=True, slots=True)
class Hold:
    """`amount` held, or wanted, for a generation that began in `month`.

    Where there is no room for all that is wanted, `least` of it will do; None: nothing less.
    """

    generation_id: UUID
    user_id: UUID
    key_id: UUID | None
    month: str
    amount: int
    least: int | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        """The balances that it counts in."""
        scopes: list[tuple[str, UUID]] = [("user", self.user_id)]
        if self.key_id is not None:
            scopes.insert(0, ("key", self.key_id))
        return tuple(Place(*scope, period) for scope in scopes for period in (self.month, TOTAL))


class Limit(enum.Enum):
    """A limit of a budget. Those that a new month does not lift come first."""

    KEY_TOTAL = ("key", TOTAL)
    USER_TOTAL = ("user", TOTAL)
    KEY_MONTHLY = ("key", "month")
    USER_MONTHLY = ("user", "month")


class Verdict(enum.Enum):
    """What became of a hold."""

    HELD = enum.auto()
    NOT_NEEDED = enum.auto()
    REFUSED = enum.auto()
    SETTLED = enum.auto()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one hold.

    `limit` and what is behind it say what a refused one is over, and `amount` what one that is
    held holds.
    """

    verdict: Verdict
    soft_exceeded: bool = False
    limit: Limit | None = None
    resets_at: datetime | None = None
    allowed: int = 0
    balance: Balance = Balance()
    amount: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget, and what counts against it: of a month that ends at `resets_at`, or of all time."""

    budget: Budget
    balance: Balance
    resets_at: datetime | None


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction of what a generation cost, the `seq`-th."""

    generation_id: UUID
    seq: int
    cost_delta: int
    note: str


def decide(
    hold: Hold,
    wanted: Hold,
    budgets: Mapping[str, Budget],
    balances: Mapping[Place, Balance],
) -> Outcome:
    """How much of what is `wanted` is held, when it is there already as `hold`.

    That is all of it, or what fits into the balances that it counts in, but no less than
    `wanted.least`; it is REFUSED otherwise, and `hold` stays. `budgets` are those of the scopes
    "key" and "user".
    """
    at = {(p.scope, TOTAL if p.period == TOTAL else "month"): balances[p] for p in hold.places}
    soft = _soft_exceeded(hold, budgets, balances)
    amount = max(wanted.amount, hold.amount)
    least = max(amount if wanted.least is None else wanted.least, hold.amount)
    for limit in Limit if amount > hold.amount else ():
        scope, period = limit.value
        budget, balance = budgets.get(scope, Budget()), at.get(limit.value)
        allowed = budget.total if period == TOTAL else budget.monthly
        if balance is None or allowed is None:
            continue
        fits = hold.amount + allowed - balance.spent - balance.reserved
        if fits < least:
            resets_at = None if period == TOTAL else month_end(hold.month)
            return Outcome(Verdict.REFUSED, soft, limit, resets_at, allowed, balance)
        amount = min(amount, fits)
    return Outcome(Verdict.HELD, soft, amount=amount)


def still_fit(
    held: Sequence[tuple[Hold, Mapping[str, Budget]]], balances: Mapping[Place, Balance]
) -> list[Outcome]:
    """Which of the holds fit into budgets as they are now; the last ones give way first."""
    left = dict(balances)
    outcomes: list[Outcome] = []
    for hold, budgets in reversed(held):
        # As if it were asked for now, by whom it is of.
        without = {
            place: replace(left[place], reserved=left[place].reserved - hold.amount)
            for place in hold.places
        }
        outcome = decide(replace(hold, amount=0), hold, budgets, without)
        if outcome.verdict is Verdict.REFUSED:
            left |= without
        outcomes.append(outcome)
    return outcomes[::-1]


def _soft_exceeded(
    hold: Hold, budgets: Mapping[str, Budget], balances: Mapping[Place, Balance]
) -> bool:
    """Whether so much is spent already; what is held may come back, and is no reason to warn."""
    for place in hold.places:
        budget, balance = budgets.get(place.scope, Budget()), balances[place]
        if budget.soft is None or place.period != budget.period(hold.month):
            continue
        if balance.spent >= budget.soft:
            return True
    return False


def month_of(moment: datetime) -> str:
    """The month of `moment`, which is of UTC."""
    return f"{moment.year:04}-{moment.month:02}"


def month_end(month: str) -> datetime | None:
    """When the month after `month` begins; None after the last one that there is."""
    year, number = map(int, month.split("-"))
    year, number = year + number // 12, number % 12 + 1
    return datetime(year, number, 1, tzinfo=UTC) if year <= MAXYEAR else None


def nano_usd(usd: float) -> int:
    """Dollars as they were written, in whole nano-dollars."""
    return round(Decimal(repr(usd)) * _NANOS)
