"""Several replicas of keys on one database, and what becomes of them without it."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import grpc
import psycopg
import pytest

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from mesh import db, notices, status
from mesh.local import postgres
from services.keys import cache, secret
from services.keys.store import keys as store
from services.keys.store.changes import CHANGES
from tests import harness
from tests.integration.keys.conftest import asking
from tests.support import eventually

_OF_DATABASE = "FROM pg_stat_activity WHERE datname = %s"
_LISTENERS = "FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()"


def run(dsn, statement, *values):
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


async def seconds_until(verdict, authorize, key):
    """Seconds until `key` gets `verdict`, asked all the time, as a busy caller would."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def given():
        return (await authorize(key)).verdict == verdict

    await eventually(given, within=10)
    return loop.time() - began


@pytest.fixture
def revoke(keys, person):
    async def revoke(made):
        request = keys_pb.RevokeApiKeyRequest(key_id=made.id)
        await keys.RevokeApiKey(request, metadata=person.by_token, timeout=5)

    return revoke


@pytest.fixture
async def second(mesh):
    """A way to ask a second replica."""
    async with harness.replica(mesh, "keys") as other:
        yield await asking(other)


@pytest.fixture
def nothing_is_read_again(monkeypatch):
    """From the second replica's start, it only learns what it is told."""
    monkeypatch.setattr(cache, "REFRESH_EVERY", 600)
    monkeypatch.setattr(cache, "LIFETIME", 600)


@pytest.mark.usefixtures("nothing_is_read_again")
async def test_a_key_revoked_elsewhere_is_refused_when_replicas_are_told(second, create, revoke):
    made = await create()
    before = await second(made.key)
    await revoke(made)

    assert before.verdict == pb.VERDICT_ALLOWED
    assert await seconds_until(pb.VERDICT_REVOKED, second, made.key) < 2


@pytest.mark.usefixtures("nothing_is_read_again")
async def test_a_replica_that_was_not_listening_forgets_all_it_knows(
    second, create, revoke, admin_dsn
):
    made = await create()
    before = await second(made.key)
    name = CHANGES
    killed = run(admin_dsn, f"SELECT pg_terminate_backend(pid) {_LISTENERS}", name)
    await revoke(made)

    assert before.verdict == pb.VERDICT_ALLOWED
    assert len(killed) == 2
    assert await seconds_until(pb.VERDICT_REVOKED, second, made.key) < 2
    await eventually(lambda: len(run(admin_dsn, f"SELECT 1 {_LISTENERS}", name)) == 2)


@pytest.mark.usefixtures("nothing_is_read_again")
async def test_the_replica_that_revokes_needs_not_be_told(
    mesh, create, person, admin_dsn, monkeypatch
):
    monkeypatch.setattr(notices, "_FIRST_PAUSE", 600)
    name = CHANGES
    others = [pid for (pid,) in run(admin_dsn, f"SELECT pid {_LISTENERS}", name)]
    async with harness.replica(mesh, "keys") as replica:
        made, authorize = await create(), await asking(replica)
        keys = keys_grpc.KeysServiceStub(await replica.channel("keys"))
        deafen = f"SELECT pg_terminate_backend(pid) {_LISTENERS} AND pid <> ALL(%s)"
        deafened = await eventually(lambda: run(admin_dsn, deafen, name, others))
        before = await authorize(made.key)
        request = keys_pb.RevokeApiKeyRequest(key_id=made.id)
        await keys.RevokeApiKey(request, metadata=person.by_token, timeout=5)
        after = await authorize(made.key)

    assert len(deafened) == 1
    assert (before.verdict, after.verdict) == (pb.VERDICT_ALLOWED, pb.VERDICT_REVOKED)


@pytest.mark.parametrize("refresh_every", [cache.REFRESH_EVERY, 600], ids=["busy", "stuck"])
async def test_a_key_revoked_without_a_word_is_refused_within_2_seconds(
    mesh, create, admin_dsn, monkeypatch, refresh_every
):
    monkeypatch.setattr(cache, "REFRESH_EVERY", refresh_every)
    made = await create()
    async with harness.replica(mesh, "keys") as replica:
        authorize = await asking(replica)
        before = await authorize(made.key)
        run(admin_dsn, "UPDATE keys.api_keys SET revoked_at = now() WHERE id = %s", made.id)
        seconds = await seconds_until(pb.VERDICT_REVOKED, authorize, made.key)

    assert before.verdict == pb.VERDICT_ALLOWED
    assert 0.1 < seconds < 2  # Not at once: it was in memory.


async def test_the_last_use_is_written_every_now_and_then(mesh, create, admin_dsn, monkeypatch):
    monkeypatch.setattr("services.keys.last_used.WRITE_EVERY", 0.05)
    made = await create()
    async with harness.replica(mesh, "keys") as replica:
        authorize = await asking(replica)
        await authorize(made.key)
        used_at = await eventually(lambda: last_used_at(admin_dsn, made.id))

    assert abs(used_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_the_last_use_is_written_at_the_end(mesh, keys, create, person, admin_dsn):
    made, unused = await create(), await create()
    async with harness.replica(mesh, "keys") as replica:
        authorize = await asking(replica)
        await authorize(made.key)
        before = last_used_at(admin_dsn, made.id)
    request = keys_pb.GetApiKeyRequest(key_id=made.id)
    shown = await keys.GetApiKey(request, metadata=person.by_token, timeout=5)

    assert before is None
    assert shown.last_used_at.ToDatetime(UTC) == last_used_at(admin_dsn, made.id)
    assert last_used_at(admin_dsn, unused.id) is None


async def test_last_uses_move_forward_only_and_by_a_minute_at_least(create, admin_dsn):
    made = await create()
    key_id, start = UUID(made.id), datetime(2026, 1, 1, tzinfo=UTC)
    seen = []
    url = postgres.service_dsn(admin_dsn, "keys", harness.SECRET)
    async with db.opened(url) as database:
        for seconds in (0, 59, 61, -600, 60, 122):
            used = {key_id: start + timedelta(seconds=seconds)}
            await database.run(lambda c, used=used: store.set_last_used(c, used))
            seen.append((last_used_at(admin_dsn, made.id) - start).total_seconds())

    assert seen == [0, 0, 61, 61, 61, 122]


async def test_without_a_database_nobody_is_called_unknown(mesh, admin_dsn, person):
    name = "keys_without_database"
    own = replace(mesh, admin_dsn=harness.new_database(admin_dsn, name))
    async with harness.replica(own, "keys") as alone, harness.replica(alone, "usage") as reader:
        authorize = await asking(alone)
        keys = keys_grpc.KeysServiceStub(await alone.channel("keys"))
        usage = usage_grpc.UsageServiceStub(await reader.channel("usage"))
        request = keys_pb.CreateApiKeyRequest(name="known")
        known = (await keys.CreateApiKey(request, metadata=person.by_token, timeout=5)).key
        await authorize(known)

        run(admin_dsn, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run(admin_dsn, f"SELECT pg_terminate_backend(pid) {_OF_DATABASE}", name)
        still_good = await authorize(known)
        unknown = secret.new_secret()
        metadata, nothing = harness.bearer(unknown), usage_pb.ListUsageRequest()
        answers = await asyncio.gather(
            refusal(authorize(unknown)),
            refusal(usage.ListUsage(nothing, metadata=metadata, timeout=5)),
        )
        # By now the caller may have seen that the server is not ready, too.
        code, _ = await eventually(lambda: refusal(authorize(known)), within=5)

    assert still_good.verdict == pb.VERDICT_ALLOWED
    assert answers == [(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")] * 2
    assert code is grpc.StatusCode.UNAVAILABLE


async def refusal(calling):
    """The code and reason of a call that fails, or None when it does not."""
    try:
        await calling
    except grpc.aio.AioRpcError as error:
        return error.code(), status.reason_of(error)
    return None


def last_used_at(admin_dsn, key_id):
    rows = run(admin_dsn, "SELECT last_used_at FROM keys.api_keys WHERE id = %s", key_id)
    return rows[0][0]
