"""What other services are told of a caller."""

import time
from uuid import uuid4

import grpc
import psycopg
import pytest
import structlog
from sqlalchemy import Engine, event

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from mesh import status
from services.keys import secret
from services.keys.cache import REFRESH_EVERY


async def revoke(keys, person, made):
    request = keys_pb.RevokeApiKeyRequest(key_id=made.id)
    await keys.RevokeApiKey(request, metadata=person.by_token, timeout=5)


async def test_a_good_key_is_allowed_and_its_owner_told(authorize, create, person):
    made = await create()

    answer = await authorize(made.key)

    assert answer == pb.AuthorizeResponse(
        verdict=pb.VERDICT_ALLOWED, key_id=made.id, user_id=person.id
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda key: secret.new_secret(),
        lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"),
        lambda key: key + " ",
        lambda key: "ai_",
        lambda key: "ai_" + "é" * 49,
    ],
    ids=["unknown", "mistyped", "with a space", "empty", "letters"],
)
async def test_any_other_text_is_unknown(authorize, create, wrong):
    made = await create()

    answer = await authorize(wrong(made.key), model="echo")

    assert answer == pb.AuthorizeResponse(verdict=pb.VERDICT_UNKNOWN)


async def test_malformed_keys_ask_no_database(authorize, statements):
    asked = []
    for wrong in (secret.new_secret, lambda: "ai_" + "0" * 49):
        statements.clear()
        for _ in range(20):
            await authorize(wrong())
        asked.append(len(statements))

    # Meanwhile keys in use may be read again.
    unknown, malformed = asked
    assert unknown >= 20
    assert malformed < 10


async def test_a_revoked_key_is_refused_at_once_where_it_was_revoked(
    keys, authorize, create, person
):
    made = await create()
    before = await authorize(made.key)
    await revoke(keys, person, made)

    answer = await authorize(made.key, model="echo")

    assert before.verdict == pb.VERDICT_ALLOWED
    assert answer == pb.AuthorizeResponse(
        verdict=pb.VERDICT_REVOKED, key_id=made.id, user_id=person.id
    )


async def test_an_expired_key_is_refused(authorize, admin_dsn, create, person):
    made = await create()
    with psycopg.connect(admin_dsn) as connection:
        connection.execute("UPDATE keys.api_keys SET expires_at = now() WHERE id = %s", [made.id])

    answer = await authorize(made.key, model="echo")

    assert answer == pb.AuthorizeResponse(
        verdict=pb.VERDICT_EXPIRED, key_id=made.id, user_id=person.id
    )


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        ({"model": "gpt-4o", "model_aliases": ["smart"]}, pb.VERDICT_ALLOWED),
        ({"model": "gpt-4o-mini", "model_aliases": ["fast", "cheap"]}, pb.VERDICT_ALLOWED),
        ({"model": "gpt-4o-2024", "model_aliases": ["old"]}, pb.VERDICT_MODEL_NOT_ALLOWED),
        ({"model_aliases": ["old"]}, pb.VERDICT_ALLOWED),
        ({}, pb.VERDICT_ALLOWED),
    ],
    ids=["id", "alias", "another", "aliases of no model", "no model"],
)
async def test_a_key_with_models_calls_those_only(authorize, create, asked, verdict):
    made = await create(allowed_models=["gpt-4o", "cheap"])

    assert (await authorize(made.key, **asked)).verdict == verdict


async def test_the_limit_is_counted_told_and_then_refused(authorize, create):
    made = await create(rate_limit_per_minute=2)

    answers = [await authorize(made.key, model="echo") for _ in range(4)]

    limits = [answer.rate_limit for answer in answers]
    assert [answer.verdict for answer in answers] == [
        *[pb.VERDICT_ALLOWED] * 2,
        *[pb.VERDICT_RATE_LIMITED] * 2,
    ]
    assert [(limit.limit, limit.remaining) for limit in limits] == [(2, 1), (2, 0), (2, 0), (2, 0)]
    # A slow machine may take seconds for four calls.
    assert limits[0].retry_after_seconds == 0
    assert all(25 <= limit.retry_after_seconds <= 30 for limit in limits[1:])
    assert 25 <= limits[0].reset_seconds <= 30
    assert all(55 <= limit.reset_seconds <= 60 for limit in limits[1:])


async def test_only_allowed_calls_to_models_spend_the_limit(authorize, create):
    made = await create(rate_limit_per_minute=3, allowed_models=["echo"])
    for _ in range(5):
        await authorize(made.key)
    refusals = [await authorize(made.key, model="gpt-4o") for _ in range(5)]

    answer = await authorize(made.key, model="echo")

    assert {refusal.verdict for refusal in refusals} == {pb.VERDICT_MODEL_NOT_ALLOWED}
    assert {refusal.rate_limit.remaining for refusal in refusals} == {3}
    assert (answer.verdict, answer.rate_limit.remaining) == (pb.VERDICT_ALLOWED, 2)


async def test_an_account_spends_a_limit_of_its_own(mesh, authorize):
    user_id, limit = str(uuid4()), int(mesh.settings["RATE_LIMIT_PER_MINUTE"])
    called = [await authorize(user_id=user_id, model="echo") for _ in range(2)]
    reading = await authorize(user_id=user_id)

    assert reading == pb.AuthorizeResponse(verdict=pb.VERDICT_ALLOWED, user_id=user_id)
    assert [(answer.verdict, answer.key_id, answer.user_id) for answer in called] == [
        (pb.VERDICT_ALLOWED, "", user_id)
    ] * 2
    assert [answer.rate_limit.remaining for answer in called] == [limit - 1, limit - 2]


async def test_a_changed_limit_holds_from_the_next_call(keys, authorize, create, person):
    made = await create(rate_limit_per_minute=60)
    before = await authorize(made.key, model="echo")
    request = keys_pb.UpdateApiKeyRequest(key_id=made.id, rate_limit_per_minute=6)
    await keys.UpdateApiKey(request, metadata=person.by_token, timeout=5)

    after = await authorize(made.key, model="echo")

    assert (before.rate_limit.limit, after.rate_limit.limit) == (60, 6)


async def test_a_key_in_use_costs_no_statement_per_call(authorize, create, statements):
    made = await create(rate_limit_per_minute=100_000)
    await authorize(made.key, model="echo")
    statements.clear()
    began = time.monotonic()
    for _ in range(300):
        await authorize(made.key, model="echo")
    seconds = time.monotonic() - began

    # One more where the notice that the key was made comes late.
    assert len(statements) <= 2 + seconds / REFRESH_EVERY


async def test_no_secret_is_logged(keys, authorize, create, person):
    with structlog.testing.capture_logs() as lines:
        made = await create()
        for key in (made.key, made.key[:-1] + "_", secret.new_secret()):
            await authorize(key, model="echo")
        await revoke(keys, person, made)

    assert len(lines) >= 5
    assert made.key[3:46] not in repr(lines)


@pytest.mark.parametrize("peer", ["edge", "operator"])
async def test_only_services_may_ask(mesh, person, peer):
    stub = pb_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer=peer))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Authorize(pb.AuthorizeRequest(api_key=person.key), timeout=5)

    assert (refused.value.code(), status.reason_of(refused.value)) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "PEER_NOT_ALLOWED",
    )


@pytest.fixture
def statements():
    """The statements about keys that this process runs."""
    seen = []

    def note(connection, cursor, statement, *rest):
        if "api_keys" in statement:
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)
