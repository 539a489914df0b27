"""Serves the processes that run models."""

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.failpoints import reach
from mesh.fields import timestamp
from mesh.server import Context
from services.usage.commands.ledger import Ledger
from services.usage.domain import records as domain
from services.usage.domain.ledger import (
    Adjustment,
    Budget,
    Hold,
    Limit,
    Outcome,
    Verdict,
    month_of,
)
from services.usage.domain.records import KINDS, KindPrices, Record

_VERDICTS = {
    Verdict.HELD: pb.HOLD_VERDICT_HELD,
    Verdict.NOT_NEEDED: pb.HOLD_VERDICT_NOT_NEEDED,
    Verdict.REFUSED: pb.HOLD_VERDICT_REFUSED,
    Verdict.SETTLED: pb.HOLD_VERDICT_SETTLED,
}
_LIMITS = {
    Limit.KEY_MONTHLY: pb.LIMIT_KEY_MONTHLY,
    Limit.KEY_TOTAL: pb.LIMIT_KEY_TOTAL,
    Limit.USER_MONTHLY: pb.LIMIT_USER_MONTHLY,
    Limit.USER_TOTAL: pb.LIMIT_USER_TOTAL,
}


class UsageInternalServicer(pb_grpc.UsageInternalServiceServicer):
    """Serves `khesht.usage.v1.UsageInternalService`."""

    def __init__(self, ledger: Ledger) -> None:
        """Takes the commands."""
        self._ledger = ledger

    async def HoldBudget(
        self, request: pb.HoldBudgetRequest, context: Context
    ) -> pb.HoldBudgetResponse:
        """Holds money for generations."""
        asked = [
            (_hold(told, at), _budget(told.key_budget)) for at, told in enumerate(request.holds)
        ]
        reach("usage.holding")
        outcomes = await self._ledger.hold(asked)
        reach("usage.held")
        return pb.HoldBudgetResponse(outcomes=map(_outcome, outcomes))

    async def RenewHolds(
        self, request: pb.RenewHoldsRequest, context: Context
    ) -> pb.RenewHoldsResponse:
        """Keeps holds from ending."""
        missing = await self._ledger.renew([UUID(each) for each in request.generation_ids])
        return pb.RenewHoldsResponse(missing_generation_ids=map(str, missing))

    async def CheckHolds(
        self, request: pb.CheckHoldsRequest, context: Context
    ) -> pb.CheckHoldsResponse:
        """Says which holds do not fit any more."""
        asked = [(UUID(each.generation_id), _budget(each.key_budget)) for each in request.holds]
        return pb.CheckHoldsResponse(outcomes=map(_outcome, await self._ledger.check(asked)))

    async def ReleaseHolds(
        self, request: pb.ReleaseHoldsRequest, context: Context
    ) -> pb.ReleaseHoldsResponse:
        """Gives back what is held."""
        released = await self._ledger.release([UUID(each) for each in request.generation_ids])
        return pb.ReleaseHoldsResponse(released_count=released)

    async def RecordUsage(
        self, request: pb.RecordUsageRequest, context: Context
    ) -> pb.RecordUsageResponse:
        """Stores what generations used, and charges it."""
        records = [_record(told, at) for at, told in enumerate(request.consumptions)]
        reach("usage.recording")
        stored = await self._ledger.record(records)
        reach("usage.recorded")
        return pb.RecordUsageResponse(stored_count=stored)

    async def AdjustUsage(
        self, request: pb.AdjustUsageRequest, context: Context
    ) -> pb.AdjustUsageResponse:
        """Corrects what a generation cost."""
        generation_id = UUID(request.generation_id)
        await self._ledger.adjust(
            Adjustment(generation_id, request.seq, request.cost_delta, request.note)
        )
        return pb.AdjustUsageResponse()


def _hold(told: pb.Hold, at: int) -> Hold:
    return Hold(
        generation_id=UUID(told.generation_id),
        user_id=UUID(told.user_id),
        key_id=UUID(told.key_id) if told.key_id else None,
        month=month_of(_time(told.created_at, f"holds[{at}]")),
        amount=told.amount,
        least=min(told.least_amount, told.amount) if told.HasField("least_amount") else None,
    )


def _budget(told: pb.Budget) -> Budget:
    return Budget(
        monthly=told.monthly if told.HasField("monthly") else None,
        total=told.total if told.HasField("total") else None,
        soft=told.soft if told.HasField("soft") else None,
    )


def _outcome(outcome: Outcome) -> pb.HoldOutcome:
    return pb.HoldOutcome(
        verdict=_VERDICTS[outcome.verdict],
        soft_exceeded=outcome.soft_exceeded,
        limit=_LIMITS[outcome.limit] if outcome.limit else pb.LIMIT_UNSPECIFIED,
        resets_at=timestamp(outcome.resets_at) if outcome.resets_at else None,
        allowed=outcome.allowed,
        spent=outcome.balance.spent,
        reserved=outcome.balance.reserved,
        amount=outcome.amount,
    )


def _record(told: pb.Consumption, at: int) -> Record:
    prices = (told.prompt_price, told.completion_price)
    kinds = tuple(getattr(told.kinds, kind) for kind in KINDS)
    kind_prices = _kind_prices(told.kind_prices) if told.HasField("kind_prices") else None
    _check_kinds(told, at)
    cost = domain.cost(told.prompt_tokens, told.completion_tokens, *prices, kinds, kind_prices)
    if told.prompt_tokens + told.completion_tokens > domain.MOST_TOKENS:
        raise errors.invalid(f"consumptions[{at}]", "used more tokens than can be told")
    if cost > domain.MOST_NANO_USD:
        raise errors.invalid(f"consumptions[{at}]", "cost more than can be stored")
    return Record(
        generation_id=UUID(told.generation_id),
        request_id=told.request_id,
        user_id=UUID(told.user_id),
        key_id=UUID(told.key_id) if told.key_id else None,
        model=told.model,
        provider=told.provider,
        prompt_tokens=told.prompt_tokens,
        completion_tokens=told.completion_tokens,
        prompt_price=told.prompt_price,
        completion_price=told.completion_price,
        **{f"{kind}_tokens": tokens for kind, tokens in zip(KINDS, kinds, strict=True)},
        kind_prices=kind_prices,
        cost=cost,
        status=told.status,
        basis=told.basis,
        latency_ms=told.latency_ms,
        created_at=_time(told.created_at, f"consumptions[{at}]"),
    )


def _check_kinds(told: pb.Consumption, at: int) -> None:
    """Raises InvalidRequest where more tokens have a kind than there are."""
    kinds = told.kinds
    if (
        kinds.cached_read + kinds.cached_write + kinds.audio_prompt > told.prompt_tokens
        or kinds.reasoning + kinds.audio_completion > told.completion_tokens
    ):
        raise errors.invalid(f"consumptions[{at}].kinds", "more tokens than were read or written")


def _kind_prices(told: pb.KindPrices) -> KindPrices:
    given = {field.name: value for field, value in told.ListFields()}
    return tuple(given.get(kind) for kind in KINDS)


def _time(told: Timestamp, of: str) -> datetime:
    try:
        return told.ToDatetime(UTC)
    except ValueError:
        raise errors.invalid(f"{of}.created_at", "must be a time") from None
