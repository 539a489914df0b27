"""Usage as its callers reach it: chat records, the edge reads."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.usage.v1 import usage_internal_service_pb2 as internal_pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as internal_pb_grpc
from khesht.usage.v1 import usage_service_pb2_grpc as pb_grpc
from tests import harness

Record = Callable[..., Awaitable[int]]


@pytest.fixture(scope="session")
async def usage(mesh: harness.Mesh) -> pb_grpc.UsageServiceStub:
    return pb_grpc.UsageServiceStub(await mesh.channel("usage"))


@pytest.fixture(scope="session")
async def record(mesh: harness.Mesh) -> Record:
    """Records consumptions, as chat, and gives how many were new."""
    stub = internal_pb_grpc.UsageInternalServiceStub(await mesh.channel("usage", peer="chat"))

    async def record(*told: internal_pb.Consumption) -> int:
        request = internal_pb.RecordUsageRequest(consumptions=told)
        return (await stub.RecordUsage(request, timeout=5)).stored_count

    return record


def consumption(user_id: str, **more: object) -> internal_pb.Consumption:
    """What one generation of `user_id` used, just now, unless `more` says otherwise."""
    now = Timestamp()
    now.GetCurrentTime()
    now.nanos -= now.nanos % 1000  # What is kept is exact to a microsecond.
    values = {
        "generation_id": str(uuid4()),
        "request_id": "request-1",
        "model": "gpt-4o-mini",
        "provider": "openai",
        "prompt_tokens": 12,
        "completion_tokens": 34,
        "prompt_price": 150_000_000,
        "completion_price": 600_000_000,
        "status": "completed",
        "basis": "provider",
        "latency_ms": 56,
        "created_at": now,
    }
    return internal_pb.Consumption(user_id=user_id, **{**values, **more})
