"""Serves the processes that run models."""

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.server import Context
from services.usage.commands.records import Usage
from services.usage.domain import records as domain
from services.usage.domain.records import Record


class UsageInternalServicer(pb_grpc.UsageInternalServiceServicer):
    """Serves `khesht.usage.v1.UsageInternalService`."""

    def __init__(self, usage: Usage) -> None:
        """Takes the commands."""
        self._usage = usage

    async def RecordUsage(
        self, request: pb.RecordUsageRequest, context: Context
    ) -> pb.RecordUsageResponse:
        """Stores what generations used."""
        records = [_record(told, at) for at, told in enumerate(request.consumptions)]
        return pb.RecordUsageResponse(stored_count=await self._usage.record(records))


def _record(told: pb.Consumption, at: int) -> Record:
    prices = (told.prompt_price, told.completion_price)
    cost = domain.cost(told.prompt_tokens, told.completion_tokens, *prices)
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
        cost=cost,
        status=told.status,
        basis=told.basis,
        latency_ms=told.latency_ms,
        created_at=_time(told.created_at, at),
    )


def _time(told: Timestamp, at: int) -> datetime:
    try:
        return told.ToDatetime(UTC)
    except ValueError:
        raise errors.invalid(f"consumptions[{at}].created_at", "must be a time") from None
