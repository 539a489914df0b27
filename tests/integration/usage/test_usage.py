"""Reading one's own use over gRPC."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from uuid import uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.usage.v1 import usage_service_pb2 as pb
from khesht.usage.v1 import usage_service_pb2_grpc as pb_grpc
from mesh import status
from tests.integration.usage.conftest import consumption


def ago(**span):
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) - timedelta(**span))
    return moment


@pytest.fixture(params=["by_token", "by_key"])
def caller(request, person):
    return getattr(person, request.param)


@pytest.fixture
def listed(usage):
    """Pages of records, each a list."""

    async def listed(caller, size=0, **of):
        pages, token = [], ""
        while not pages or token:
            request = pb.ListUsageRequest(page_size=size, page_token=token, **of)
            answer = await usage.ListUsage(request, metadata=caller, timeout=5)
            pages.append(list(answer.records))
            token = answer.next_page_token
        return pages

    return listed


@pytest.fixture
def summary(usage):
    async def summary(caller, **asked):
        request = pb.GetUsageSummaryRequest(**asked)
        return await usage.GetUsageSummary(request, metadata=caller, timeout=5)

    return summary


def sums(answer):
    return (
        answer.total_requests,
        answer.total_tokens,
        answer.total_prompt_tokens,
        answer.total_completion_tokens,
        answer.total_cost_usd,
    )


async def test_a_record_is_told_as_it_was_recorded(listed, record, person, caller):
    told = consumption(person.id, key_id=person.key_id, status="cancelled", basis="estimated")
    await record(told)

    assert await listed(caller) == [
        [
            pb.UsageRecord(
                generation_id=told.generation_id,
                request_id="request-1",
                key_id=person.key_id,
                model="gpt-4o-mini",
                provider="openai",
                prompt_tokens=12,
                completion_tokens=34,
                total_tokens=46,
                cost_usd=0.0000222,
                status="cancelled",
                basis="estimated",
                latency_ms=56,
                created_at=told.created_at,
            )
        ]
    ]


async def test_pages_hold_every_record_once_newest_first_also_of_one_moment(
    listed, record, person, stranger
):
    at = ago(minutes=1)
    told = [consumption(person.id, key_id=person.key_id, created_at=at) for _ in range(3)]
    told += [consumption(person.id, created_at=ago(hours=hours)) for hours in (2, 1)]
    await record(*told, consumption(stranger.id))

    def ids(records):
        newest = sorted(records, key=lambda r: (r.created_at.ToNanoseconds(), r.generation_id))
        return [each.generation_id for each in newest[::-1]]

    pages = await listed(person.by_token, size=2)
    of_key = await listed(person.by_token, size=2, key_id=person.key_id)

    assert [len(page) for page in pages] == [2, 2, 1]
    assert ids(told) == [each.generation_id for page in pages for each in page]
    assert ids(told[:3]) == [each.generation_id for page in of_key for each in page]


async def test_a_page_token_is_good_for_its_own_list_only(usage, record, person):
    await record(*(consumption(person.id, key_id=person.key_id) for _ in range(2)))
    request = pb.ListUsageRequest(page_size=1)
    answer = await usage.ListUsage(request, metadata=person.by_token, timeout=5)
    request = pb.ListUsageRequest(page_token=answer.next_page_token, key_id=person.key_id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await usage.ListUsage(request, metadata=person.by_token, timeout=5)

    assert status.reason_of(refused.value) == "INVALID_PAGE_TOKEN"


async def test_a_summary_is_exact(summary, record, person, caller):
    told = [
        consumption(
            person.id,
            key_id=person.key_id if number % 2 else "",
            prompt_tokens=number,
            completion_tokens=7 * number,
            prompt_price=123_456_789_123,
            completion_price=987_654_321_987,
        )
        for number in range(100)
    ]
    await record(*told)

    whole, of_key = await summary(caller), await summary(caller, key_id=person.key_id)

    assert sums(whole) == expected(told)
    assert sums(of_key) == expected(told[1::2])


def expected(told):
    """The sums by exact fractions, each cost rounded half up to a nano-dollar."""
    prompt = sum(each.prompt_tokens for each in told)
    completion = sum(each.completion_tokens for each in told)
    nanos = sum(
        int(
            Fraction(
                each.prompt_tokens * each.prompt_price
                + each.completion_tokens * each.completion_price,
                10**6,
            )
            + Fraction(1, 2)
        )
        for each in told
    )
    return len(told), prompt + completion, prompt, completion, float(Fraction(nanos, 10**9))


@pytest.mark.parametrize(("days", "counted"), [(0, 3), (1, 1), (2, 2), (30, 3), (366, 4)])
async def test_a_summary_counts_the_days_back_from_now(summary, record, person, days, counted):
    spans = ({"hours": 23}, {"hours": 47}, {"days": 29}, {"days": 31}, {"days": 367})
    await record(*(consumption(person.id, created_at=ago(**span)) for span in spans))

    answer = await summary(person.by_token, days=days)

    start, end = answer.period_start.ToDatetime(UTC), answer.period_end.ToDatetime(UTC)
    assert answer.total_requests == counted
    assert end - start == timedelta(days=days or 30)
    assert abs(datetime.now(UTC) - end) < timedelta(seconds=5)


async def test_a_foreign_key_looks_like_one_that_was_never_used(
    listed, summary, record, caller, stranger
):
    await record(consumption(stranger.id, key_id=stranger.key_id))
    foreign, random = stranger.key_id, str(uuid4())

    lists = [await listed(caller, key_id=key_id) for key_id in (foreign, random)]
    summaries = [await summary(caller, key_id=key_id) for key_id in (foreign, random)]

    assert lists == [[[]], [[]]]
    assert [sums(answer) for answer in summaries] == [(0, 0, 0, 0, 0)] * 2
    assert (await summary(stranger.by_key, key_id=foreign)).total_requests == 1


@pytest.mark.parametrize(
    ("method", "fields", "wrong"),
    [
        ("GetUsageSummary", {"days": 367}, "days"),
        ("GetUsageSummary", {"days": -1}, "days"),
        ("GetUsageSummary", {"key_id": "1"}, "key_id"),
        ("ListUsage", {"page_size": -1}, "page_size"),
        ("ListUsage", {"page_token": "made up"}, "page_token"),
    ],
)
async def test_wrong_fields_are_named(usage, person, method, fields, wrong):
    request = getattr(pb, f"{method}Request")(**fields)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(usage, method)(request, metadata=person.by_token, timeout=5)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{wrong}: ")


@pytest.mark.parametrize(
    ("peer", "credential", "reason"),
    [("edge", "", "MISSING_CREDENTIALS"), ("chat", "token", "PEER_NOT_ALLOWED")],
)
async def test_use_is_shown_by_the_edge_and_to_its_owner_only(
    mesh, person, peer, credential, reason
):
    stub = pb_grpc.UsageServiceStub(await mesh.channel("usage", peer=peer))
    metadata = person.by_token if credential else ()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListUsage(pb.ListUsageRequest(), metadata=metadata, timeout=5)

    assert status.reason_of(refused.value) == reason
