"""A new secret for a key, and how long the old one is good."""

from datetime import UTC, datetime, timedelta

import grpc
import psycopg
import pytest

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_service_pb2 as pb
from mesh import status
from services.keys import cache
from tests import harness
from tests.integration.keys.conftest import asking
from tests.support import eventually

ALLOWED, UNKNOWN = internal_pb.VERDICT_ALLOWED, internal_pb.VERDICT_UNKNOWN
EXPIRED, REVOKED = internal_pb.VERDICT_EXPIRED, internal_pb.VERDICT_REVOKED


@pytest.fixture
def rotate(keys, person):
    async def rotate(made, **more):
        request = pb.RotateApiKeyRequest(key_id=made.id, **more)
        return await keys.RotateApiKey(request, metadata=person.by_token, timeout=5)

    return rotate


async def verdicts(authorize, *secrets):
    return [(await authorize(each)).verdict for each in secrets]


async def test_a_rotated_key_is_the_same_with_another_secret(keys, create, rotate, person):
    made = await create(name="CI", rate_limit_per_minute=7, monthly_budget_usd=5)
    rotated = await rotate(made)
    request = pb.GetApiKeyRequest(key_id=made.id)
    shown = await keys.GetApiKey(request, metadata=person.by_token, timeout=5)

    assert rotated.key != made.key
    assert rotated.key_prefix == rotated.key[:8]
    kept = pb.ApiKey.FromString(rotated.SerializeToString())
    kept.DiscardUnknownFields()
    assert kept == pb.ApiKey.FromString(shown.SerializeToString())
    assert (kept.name, kept.rate_limit_per_minute, kept.monthly_budget_usd) == ("CI", 7, 5)
    end = rotated.previous_expires_at.ToDatetime(UTC) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < end <= timedelta(hours=24)


async def test_both_secrets_are_one_key_until_the_grace_period_is_over(
    authorize, create, rotate, admin_dsn
):
    made = await create(rate_limit_per_minute=5)  # It comes back too slowly to be seen here.
    new = (await rotate(made, grace_period_seconds=60)).key
    answers = [await authorize(each, model="echo") for each in (made.key, new)]
    with psycopg.connect(admin_dsn) as connection:
        over = "UPDATE keys.api_keys SET previous_expires_at = now() WHERE id = %s"
        connection.execute(over, [made.id])

    async def old_is_over():
        return await verdicts(authorize, made.key, new) == [EXPIRED, ALLOWED]

    assert [each.key_id for each in answers] == [made.id] * 2
    assert answers[0].rate_limit.remaining == answers[1].rate_limit.remaining + 1
    await eventually(old_is_over)


async def test_without_grace_the_old_secret_ends_at_once(authorize, create, rotate):
    made = await create()
    before = await verdicts(authorize, made.key)
    new = (await rotate(made, grace_period_seconds=0)).key

    assert before == [ALLOWED]
    assert await verdicts(authorize, made.key, new) == [EXPIRED, ALLOWED]


async def test_there_is_one_previous_secret_and_no_more(authorize, create, rotate):
    made = await create()
    second = (await rotate(made)).key
    known = await verdicts(authorize, made.key, second)
    third = (await rotate(made)).key

    assert known == [ALLOWED, ALLOWED]
    assert await verdicts(authorize, made.key, second, third) == [UNKNOWN, ALLOWED, ALLOWED]


async def test_revoking_ends_both(keys, authorize, create, rotate, person):
    made = await create()
    new = (await rotate(made)).key
    known = await verdicts(authorize, made.key, new)
    request = pb.RevokeApiKeyRequest(key_id=made.id)
    await keys.RevokeApiKey(request, metadata=person.by_token, timeout=5)

    assert known == [ALLOWED, ALLOWED]
    assert await verdicts(authorize, made.key, new) == [REVOKED, REVOKED]


async def test_other_replicas_are_told(mesh, create, rotate, monkeypatch):
    made = await create()
    monkeypatch.setattr(cache, "REFRESH_EVERY", 600)
    monkeypatch.setattr(cache, "LIFETIME", 600)
    async with harness.replica(mesh, "keys") as other:
        second = await asking(other)
        known = await verdicts(second, made.key)
        new = (await rotate(made, grace_period_seconds=0)).key

        async def told():
            return await verdicts(second, made.key, new) == [EXPIRED, ALLOWED]

        await eventually(told, within=2)
    assert known == [ALLOWED]


@pytest.mark.parametrize("seconds", [-1, 604_801])
async def test_a_grace_period_is_a_week_at_most(create, rotate, seconds):
    made = await create()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rotate(made, grace_period_seconds=seconds)

    assert status.reason_of(refused.value) == "INVALID_FIELDS"
    assert refused.value.details().startswith("grace_period_seconds: ")


async def test_a_key_that_has_expired_is_rotated_with_a_new_end_only(
    keys, authorize, create, rotate, person, admin_dsn
):
    made = await create(expires_at=datetime.now(UTC) + timedelta(hours=1))
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE keys.api_keys SET expires_at = now() - interval '1 second' WHERE id = %s",
            [made.id],
        )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await rotate(made)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "expires_at" in refused.value.details()
    got = await keys.GetApiKey(
        pb.GetApiKeyRequest(key_id=made.id), metadata=person.by_token, timeout=5
    )
    assert got.key_prefix == made.key_prefix
    end = datetime.now(UTC) + timedelta(hours=1)
    rotated = await rotate(made, expires_at=end)
    assert rotated.is_active
    assert rotated.expires_at.ToDatetime(UTC) == end
    # What had ended stays ended, whatever the time of grace.
    assert await verdicts(authorize, rotated.key, made.key) == [ALLOWED, EXPIRED]


async def test_a_new_end_is_in_the_future_and_the_old_secret_keeps_its_own(
    authorize, create, rotate
):
    soon = datetime.now(UTC) + timedelta(minutes=5)
    made = await create(expires_at=soon)
    with pytest.raises(grpc.aio.AioRpcError):
        await rotate(made, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    rotated = await rotate(made, expires_at=soon + timedelta(days=9))
    assert rotated.previous_expires_at.ToDatetime(UTC) == soon
    assert await verdicts(authorize, rotated.key, made.key) == [ALLOWED, ALLOWED]
