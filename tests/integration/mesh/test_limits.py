"""Limits and revocation as callers of a busy service meet them."""

import asyncio
from collections import Counter

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from tests import harness
from tests.integration.conftest import Person
from tests.integration.mesh.rpc import UNARY, channel, credentials_of, outcome
from tests.support import eventually

OK = (grpc.StatusCode.OK, "")
LIMITED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
REPLY = "/khesht.chat.v1.ChatService/CreateReply"
MODELS = "/khesht.chat.v1.ChatService/ListModels"


async def new_key(mesh: harness.Mesh, person: Person, **more: int) -> keys_pb.CreateApiKeyResponse:
    keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
    request = keys_pb.CreateApiKeyRequest(name="busy", **more)
    return await keys.CreateApiKey(request, timeout=5, metadata=person.by_token)


@pytest.mark.parametrize(("limit", "at_once"), [(1, 20), (7, 40), (150, 250)])
async def test_of_calls_at_once_so_many_are_allowed_as_the_limit_says(
    mesh: harness.Mesh, person: Person, limit: int, at_once: int
):
    key = (await new_key(mesh, person, rate_limit_per_minute=limit)).key
    request = pb.CreateReplyRequest(message="x", model="echo", store=False).SerializeToString()
    loop = asyncio.get_running_loop()
    async with channel(mesh, "chat", credentials_of(mesh, "edge")) as opened:
        began = loop.time()
        calls = [
            outcome(opened, REPLY, request, timeout=20, metadata=harness.bearer(key))
            for _ in range(at_once)
        ]
        ended = Counter((each.code, each.reason) for each in await asyncio.gather(*calls))
        regained = int((loop.time() - began) * limit / 60) + 1
    assert set(ended) == {OK, LIMITED}
    assert limit <= ended[OK] < limit + regained + (limit >= 60)


async def test_a_revoked_key_in_steady_use_stops_within_2_seconds(
    mesh: harness.Mesh, person: Person
):
    made = await new_key(mesh, person)
    loop = asyncio.get_running_loop()
    allowed: list[float] = []
    refused = asyncio.Event()

    async def using(opened: grpc.aio.Channel) -> None:
        while not refused.is_set():
            ended = await outcome(opened, MODELS, metadata=harness.bearer(made.key))
            if ended.code is grpc.StatusCode.OK:
                allowed.append(loop.time())
            else:
                assert (ended.code, ended.reason) == (
                    grpc.StatusCode.UNAUTHENTICATED,
                    "INVALID_CREDENTIALS",
                )
                refused.set()

    async with channel(mesh, "chat", credentials_of(mesh, "edge")) as opened:
        users = [asyncio.create_task(using(opened)) for _ in range(3)]
        await eventually(lambda: len(allowed) > 100)
        keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
        request = keys_pb.RevokeApiKeyRequest(key_id=made.id)
        await keys.RevokeApiKey(request, timeout=5, metadata=person.by_token)
        revoked = loop.time()
        await asyncio.wait_for(asyncio.gather(*users), 5)
    assert max(allowed) - revoked < 2
    assert refused.is_set()


def test_the_rpcs_are_there():
    assert {REPLY, MODELS} <= {method.name for method in UNARY}
