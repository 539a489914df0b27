"""Two replicas of keys on one database and one Redis, and what becomes of them without it."""

from dataclasses import replace

import pytest

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from services.keys import shared_limits
from tests import harness
from tests.integration.conftest import new_person
from tests.support import eventually

ALLOWED = pb.VERDICT_ALLOWED


@pytest.fixture
async def mesh(admin_dsn, certificates_folder, redis, patience):
    settings = {"REDIS_URL": redis.url, "KEYS_REPLICAS": "2"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", "keys", settings=settings
    ) as running:
        yield running


@pytest.fixture
async def person(mesh):
    return await new_person(mesh)


class Replicas:
    """Two of keys, asked in turn."""

    def __init__(self, *stubs):
        self.stubs = stubs

    async def allowed(self, key, times):
        """How many of so many calls are allowed."""
        request = pb.AuthorizeRequest(api_key=key, model="echo")
        answers = [await self.stubs[n % 2].Authorize(request, timeout=3) for n in range(times)]
        return sum(answer.verdict == ALLOWED for answer in answers)


async def asked(mesh):
    return pb_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer="chat"))


@pytest.fixture
async def replicas(mesh):
    async with harness.replica(mesh, "keys") as second:
        yield Replicas(await asked(mesh), await asked(second))


@pytest.fixture
def create(mesh, person):
    async def create(**wanted):
        keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
        request = keys_pb.CreateApiKeyRequest(name="shared", **wanted)
        return await keys.CreateApiKey(request, metadata=person.by_token, timeout=5)

    return create


async def test_two_replicas_share_a_limit_of_calls(replicas, create):
    key = (await create(rate_limit_per_minute=10)).key

    assert await replicas.allowed(key, 30) == 10


async def test_without_a_redis_to_share_each_one_allows_the_whole_limit(mesh, create):
    dead = {"REDIS_URL": "redis://127.0.0.1:1", "KEYS_REPLICAS": "1"}
    own = replace(mesh, settings=dead)
    key = (await create(rate_limit_per_minute=10)).key
    async with harness.replica(own, "keys") as one, harness.replica(own, "keys") as other:
        replicas = Replicas(await asked(one), await asked(other))

        assert await replicas.allowed(key, 30) == 20


async def test_tokens_that_one_replica_is_told_of_count_at_the_other(replicas, create):
    made = await create(token_limit_per_minute=100)
    before = await replicas.allowed(made.key, 2)
    spent = pb.SpentTokens(key_id=made.id, tokens=200)
    await replicas.stubs[0].SpendTokens(pb.SpendTokensRequest(spent=[spent]), timeout=3)

    assert (before, await replicas.allowed(made.key, 2)) == (2, 0)


async def test_a_redis_that_stops_midway_fails_no_call_and_multiplies_no_limit(
    redis, replicas, create, monkeypatch
):
    monkeypatch.setattr(shared_limits, "_OPEN_FOR", 0.2)
    busy, other = [await create(rate_limit_per_minute=10) for _ in range(2)]
    before = await replicas.allowed(busy.key, 4)
    await redis.stop()
    during = await replicas.allowed(busy.key, 30)
    await redis.start()

    async def shared():
        request = pb.AuthorizeRequest(api_key=other.key, model="echo")
        answers = [await stub.Authorize(request, timeout=3) for stub in replicas.stubs]
        return [answer.rate_limit.limit for answer in answers] == [10, 10]

    await eventually(shared)
    assert before == 4
    assert during == 10  # Half of the limit at each of the two.
