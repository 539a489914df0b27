"""Money that usage holds for a generation while it runs, so that no budget is overspent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import grpc
import structlog

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.fields import timestamp
from mesh.grouped import Grouped
from mesh.identity.principal import Budget
from services.chat.domain.models import Catalog, Model
from services.chat.domain.price import NOTHING_GIVEN_UP, Price
from services.chat.domain.provider import Prompt, Relay
from services.chat.domain.rows import Opening
from services.chat.domain.tokens import Tokens

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("budget")

RENEW_EVERY = 15.0
_MOST_AT_ONCE = 200
_MOST_RENEWED = 1_000
_ANSWERED_WITHIN = 3.0
# Tokens of a reply that are paid for ahead where its model takes no limit: more are, when it
# grows longer.
_AHEAD = 4_096
# How long it is remembered that an account has no budget: one that is set now holds then.
_FRESH = 1.0
# And while usage, where budgets are set, does not answer.
_STALE = 60.0
_MOST_REMEMBERED = 10_000
# What a caller is told beside a reply: its soft budget is spent; the reply may have fewer tokens
# than it was to have, as no more money was left.
SOFT_BUDGET_EXCEEDED = "soft-budget-exceeded"
LIMITED_BY_BUDGET = "reply-limited-by-budget"
_SECONDS_OF_A_CALL = 2.0
_TOLD_WITHIN = 0.3
_NANOS = 1_000_000_000

_LIMITS = {
    pb.LIMIT_KEY_MONTHLY: "the monthly budget of this key",
    pb.LIMIT_KEY_TOTAL: "the total budget of this key",
    pb.LIMIT_USER_MONTHLY: "the monthly budget of this account",
    pb.LIMIT_USER_TOTAL: "the total budget of this account",
}


@dataclass(frozen=True, slots=True)
class Spender:
    """Who pays, and the budget and limit of tokens that the calling key has of its own."""

    user_id: UUID
    key_id: UUID | None
    budget: Budget | None = None
    token_limit: int | None = None
    # By which of the key's secrets, or in which session, it was asked for.
    secret_id: str = ""
    session_id: UUID | None = None


@dataclass(slots=True, eq=False)
class Hold:
    """Money for `covers` tokens of a reply.

    Its provider is sent no higher limit, so that it can't cost more; only a model that takes
    no limit is watched, and its hold extended. It is `lowered` when less money was left than
    the request allowed itself.
    """

    opening: Opening
    spender: Spender
    price: Price
    covers: int
    soft_exceeded: bool = False

    @property
    def amount(self) -> int:
        """Nano-USD that are held."""
        return self.price.of(self.covers)

    @property
    def limit(self) -> int:
        """The most tokens that a choice may have."""
        most = self.covers if self.price.limited else self.price.bounds.completion
        return max(most // self.price.choices, 1)

    @property
    def lowered(self) -> bool:
        """Whether the reply is shorter than it might be, for want of money."""
        return self.price.limited and self.covers < self.price.bounds.completion

    @property
    def warnings(self) -> str:
        """What the caller is told beside the reply, or ""."""
        warnings = []
        if self.soft_exceeded:
            warnings.append(SOFT_BUDGET_EXCEEDED)
        if self.lowered:
            warnings.append(LIMITED_BY_BUDGET)
        return ", ".join(warnings)


@dataclass(slots=True)
class Budgets:
    """Holds money at usage, for many generations at a time."""

    usage: "pb_grpc.UsageInternalServiceAsyncStub"
    catalog: Catalog
    # Tokens of a choice that must be paid for, or nothing is asked.
    fewest_tokens: int = 16
    _asking: Grouped[pb.Hold, pb.HoldOutcome] = field(init=False)
    _unlimited: dict[tuple[UUID, UUID | None], float] = field(default_factory=dict)
    _held: dict[UUID, Hold] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepares to ask in groups."""
        self._asking = Grouped(self._ask_all, _MOST_AT_ONCE)

    async def hold(
        self,
        opening: Opening,
        spender: Spender,
        model: Model,
        prompt: Prompt | Relay,
        given_up: Tokens = NOTHING_GIVEN_UP,
    ) -> Hold | None:
        """Money for a generation that begins, or None where no budget applies.

        It is for all that the request allows itself, and for what was `given_up` of it before;
        where less is left, for what is left, but for `fewest_tokens` of each choice. Raises
        ResourceExhausted when there is not so much, and Unavailable.
        """
        if spender.budget is None and self._is_unlimited(spender, _FRESH):
            return None
        own = prompt.key is not None
        models = self.catalog.chain(model, own_key=own, allowed=prompt.allowed)
        # It is sent with limits that are certain, whatever it came with.
        limited = prompt.limited(max(model.max_output_tokens for model in models))
        price = Price.highest(limited, models, given_up)
        most = price.bounds.completion
        covers = most if price.limited else min(most, _AHEAD)
        fewest = min(covers, self.fewest_tokens * price.choices) if price.limited else covers
        hold = Hold(opening, spender, price, covers)
        outcome = await self._ask_twice(hold, covers, fewest)
        if outcome is None or outcome.verdict == pb.HOLD_VERDICT_NOT_NEEDED:
            return None
        if 0 < outcome.amount < price.of(covers):
            hold.covers = price.tokens_for(outcome.amount)
        hold.soft_exceeded = outcome.soft_exceeded
        self._held[opening.id] = hold
        return hold

    async def extend(self, hold: Hold) -> None:
        """Makes the hold of a reply that is not limited cover more of it.

        Raises ResourceExhausted when there is not enough money.
        """
        covers = hold.covers + _AHEAD
        await self._ask(hold, covers, covers)
        hold.covers = covers
        self._held[hold.opening.id] = hold  # Usage may have missed it, and has it again.

    async def hold_running(
        self, opening: Opening, spender: Spender, price: Price, tokens: int
    ) -> Hold | None:
        """Money for a generation that runs and has no hold, if its spender has a budget by now.

        Its provider was sent no limit for it, so it is watched: there is money for `tokens` that
        were written, and some more. Raises as `hold` does.
        """
        hold = Hold(opening, spender, replace(price, limited=False), tokens + _AHEAD)
        outcome = await self._ask(hold, hold.covers, hold.covers)
        if outcome is None or outcome.verdict != pb.HOLD_VERDICT_HELD:
            return None
        self._held[opening.id] = hold
        return hold

    async def check(
        self, holds: Sequence[tuple[Hold, Budget | None]]
    ) -> list[errors.ResourceExhausted | None]:
        """For each hold, the oldest first, why it may not go on, as budgets are now.

        Each comes with the budget that its key has now. While usage does not answer all go on.
        """
        found: list[errors.ResourceExhausted | None] = []
        for start in range(0, len(holds), _MOST_AT_ONCE):
            some = holds[start : start + _MOST_AT_ONCE]
            request = pb.CheckHoldsRequest(
                holds=[
                    pb.HoldInUse(generation_id=str(hold.opening.id), key_budget=_budget_to_pb(key))
                    for hold, key in some
                ]
            )
            try:
                answer = await self.usage.CheckHolds(request, timeout=_ANSWERED_WITHIN)
            except grpc.aio.AioRpcError as error:
                log.warning("budgets are not looked at", error=error.code().name)
                return [*found, *([None] * (len(holds) - len(found)))]
            found += [
                _Short(outcome, hold.amount) if outcome.verdict == pb.HOLD_VERDICT_REFUSED else None
                for (hold, _), outcome in zip(some, answer.outcomes, strict=True)
            ]
        return found

    async def release(self, hold: Hold) -> None:
        """Gives back what is held for a generation that nothing will be charged for."""
        self._held.pop(hold.opening.id, None)
        request = pb.ReleaseHoldsRequest(generation_ids=[str(hold.opening.id)])
        try:
            await self.usage.ReleaseHolds(request, timeout=_ANSWERED_WITHIN)
        except grpc.aio.AioRpcError as error:  # Its lease ends within a minute.
            log.warning("a hold is not released", error=error.code().name)

    async def renew(self) -> None:
        """Keeps what is held until usage has settled it. Every 15 seconds."""
        ids = list(self._held)
        for start in range(0, len(ids), _MOST_RENEWED):
            some = map(str, ids[start : start + _MOST_RENEWED])
            try:
                request = pb.RenewHoldsRequest(generation_ids=some)
                answer = await self.usage.RenewHolds(request, timeout=_ANSWERED_WITHIN)
            except grpc.aio.AioRpcError as error:
                log.warning("holds are not renewed", error=error.code().name)
                return
            for missing in answer.missing_generation_ids:
                self._held.pop(UUID(missing), None)

    async def _ask_twice(self, hold: Hold, covers: int, fewest: int) -> pb.HoldOutcome | None:
        """As `_ask`, after a wait where money that is held may be enough in a moment."""
        for least in (covers, fewest):
            try:
                return await self._ask(hold, covers, least)
            except _Short as short:
                if short.is_held:
                    break
                if least == fewest:
                    raise
        # Of a call that has just ended money is held until usage is told.
        await asyncio.sleep(_TOLD_WITHIN)
        return await self._ask(hold, covers, fewest)

    async def _ask(self, hold: Hold, covers: int, fewest: int) -> pb.HoldOutcome | None:
        """What usage says of money for `covers` tokens, or as many as there is for but `fewest`.

        None when it does not answer and had nothing against it before. Raises _Short.
        """
        amount, least = hold.price.of(covers), hold.price.of(fewest)
        who = (hold.spender.user_id, hold.spender.key_id)
        try:
            outcome = await self._asking.do(_to_pb(hold, amount, least))
        except errors.Unavailable:
            if hold.spender.budget is None and self._is_unlimited(hold.spender, _STALE):
                return None
            raise
        if outcome.verdict == pb.HOLD_VERDICT_NOT_NEEDED:
            if len(self._unlimited) >= _MOST_REMEMBERED:
                self._unlimited.clear()
            self._unlimited[who] = asyncio.get_running_loop().time()
        elif outcome.verdict == pb.HOLD_VERDICT_REFUSED:
            raise _Short(outcome, least)
        return outcome

    async def _ask_all(self, holds: Sequence[pb.Hold]) -> Sequence[pb.HoldOutcome]:
        request = pb.HoldBudgetRequest(holds=holds)
        try:
            answer = await self.usage.HoldBudget(request, timeout=_ANSWERED_WITHIN)
        except grpc.aio.AioRpcError as error:
            log.warning("usage does not hold money", count=len(holds), error=error.code().name)
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and len(holds) > 1:
                raise  # One of them is to blame, and each is asked for by itself.
            raise errors.Unavailable(
                "UNAVAILABLE", "budgets can't be looked at now", retry_after=1
            ) from None
        return list(answer.outcomes)

    def _is_unlimited(self, spender: Spender, within: float) -> bool:
        seen = self._unlimited.get((spender.user_id, spender.key_id))
        return seen is not None and asyncio.get_running_loop().time() - seen < within


def _to_pb(hold: Hold, amount: int, least: int) -> pb.Hold:
    spender = hold.spender
    given = pb.Hold(
        generation_id=str(hold.opening.id),
        user_id=str(spender.user_id),
        key_id=str(spender.key_id) if spender.key_id else "",
        amount=amount,
        least_amount=least,
        created_at=timestamp(hold.opening.created_at),
    )
    if (budget := _budget_to_pb(spender.budget)) is not None:
        given.key_budget.CopyFrom(budget)
    return given


def _budget_to_pb(budget: Budget | None) -> pb.Budget | None:
    if budget is None:
        return None
    return pb.Budget(monthly=budget.monthly, total=budget.total, soft=budget.soft)


class _Short(errors.ResourceExhausted):
    """There is less money than `needed` nano-USD; some `is_held` by others, and may come back."""

    def __init__(self, outcome: pb.HoldOutcome, needed: int) -> None:
        """Says what usage did."""
        self.is_held = outcome.spent + needed <= outcome.allowed
        wait: float | None = None
        if self.is_held:
            wait = _SECONDS_OF_A_CALL
        elif needed <= outcome.allowed and outcome.HasField("resets_at"):
            left = outcome.resets_at.ToDatetime(UTC) - datetime.now(UTC)
            wait = max(left.total_seconds(), 1.0)
        spent, held, allowed = (
            each / _NANOS for each in (outcome.spent, outcome.reserved, outcome.allowed)
        )
        super().__init__(
            "BUDGET_EXCEEDED",
            f"{_LIMITS[outcome.limit]} has no room for this, which needs {needed / _NANOS:g} USD:"
            f" of {allowed:g} {spent:g} are spent and {held:g} held",
            metadata={
                "limit": pb.Limit.Name(outcome.limit).removeprefix("LIMIT_").lower(),
                "needed_usd": f"{needed / _NANOS:.9f}",
                "allowed_usd": f"{allowed:.9f}",
                "spent_usd": f"{spent:.9f}",
                "held_usd": f"{held:.9f}",
            },
            retry_after=wait,
        )
