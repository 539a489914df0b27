"""Recording what generations used."""

import asyncio
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import status
from tests.integration.usage.conftest import consumption

DEAREST = 10**15


def rows_of(admin_dsn, user_id, columns="count(*), sum(cost)"):
    query = f"SELECT {columns} FROM usage.usage_records WHERE user_id = %s"
    with psycopg.connect(admin_dsn) as connection:
        return connection.execute(query, [user_id]).fetchall()


@pytest.fixture
def user_id():
    """An account that nobody else has; usage takes any."""
    return str(uuid4())


async def test_cost_and_prices_are_stored_exactly(admin_dsn, record, user_id):
    told = consumption(user_id, prompt_tokens=1, completion_tokens=3, prompt_price=500_000)
    await record(told)

    rows = rows_of(admin_dsn, user_id, "prompt_price, completion_price, cost")

    # 0.5 + 3 * 600 nano-USD, rounded half up.
    assert rows == [(500_000, 600_000_000, 1801)]


async def test_a_generation_keeps_what_was_first_told(admin_dsn, record, user_id):
    first = consumption(user_id)
    again = consumption(user_id, generation_id=first.generation_id, completion_tokens=1_000_000)

    stored = [await record(first), await record(again), await record(again)]

    assert stored == [1, 0, 0]
    assert rows_of(admin_dsn, user_id) == [(1, 22_200)]


async def test_a_generation_twice_in_a_batch_counts_once(admin_dsn, record, user_id):
    twice = consumption(user_id)

    stored = await record(twice, consumption(user_id), twice)

    assert stored == 2
    assert rows_of(admin_dsn, user_id) == [(2, 2 * 22_200)]


async def test_racing_batches_in_any_order_count_each_generation_once(admin_dsn, record, user_id):
    told = [consumption(user_id) for _ in range(500)]
    batches = [told[start:] + told[:start] for start in range(0, 500, 50)]
    batches += [batch[::-1] for batch in batches]

    stored = await asyncio.gather(*(record(*batch) for batch in batches))

    assert sum(stored) == 500
    assert rows_of(admin_dsn, user_id) == [(500, 500 * 22_200)]


async def test_a_full_batch_is_stored(admin_dsn, record, user_id):
    assert await record(*(consumption(user_id) for _ in range(500))) == 500
    assert rows_of(admin_dsn, user_id) == [(500, 500 * 22_200)]


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt_price": DEAREST, "prompt_tokens": 1_000_001}, "consumptions[1]"),
        ({"prompt_tokens": 2**31 - 1, "completion_tokens": 1}, "consumptions[1]"),
        ({"created_at": Timestamp(seconds=2**55)}, "consumptions[1].created_at"),
        ({"prompt_tokens": -1}, "consumptions[1].prompt_tokens"),
        ({"status": "running"}, "consumptions[1].status"),
        ({"key_id": "1"}, "consumptions[1].key_id"),
    ],
    ids=["cost", "tokens", "time", "negative", "status", "key"],
)
async def test_a_batch_with_a_wrong_record_is_refused_whole(
    admin_dsn, record, user_id, more, field
):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await record(consumption(user_id), consumption(user_id, **more))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{field}: ")
    assert rows_of(admin_dsn, user_id) == [(0, None)]


async def test_the_largest_cost_that_can_be_stored_is(admin_dsn, record, user_id):
    await record(
        consumption(user_id, prompt_price=DEAREST, prompt_tokens=10**6, completion_tokens=0)
    )

    assert rows_of(admin_dsn, user_id) == [(1, DEAREST)]


@pytest.mark.parametrize("peer", ["edge", "operator", "auth", "keys", "items", "usage"])
async def test_only_chat_and_its_workers_may_record(mesh, user_id, peer):
    stub = pb_grpc.UsageInternalServiceStub(await mesh.channel("usage", peer=peer))
    request = pb.RecordUsageRequest(consumptions=[consumption(user_id)])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.RecordUsage(request, timeout=5)

    assert status.reason_of(refused.value) == "PEER_NOT_ALLOWED"
