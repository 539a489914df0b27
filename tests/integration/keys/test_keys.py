"""Managing keys over gRPC."""

import asyncio
import base64
import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from mesh import status
from tests import harness
from tests.integration.conftest import Person, new_person

# Sums that no double holds exactly.
SPENDING = {
    "token_limit_per_minute": 1000,
    "monthly_budget_usd": 10.1,
    "total_budget_usd": 999_999.999999999,
    "soft_budget_usd": 0.000000001,
}
DENIED, MISSING = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.NOT_FOUND


def in_days(days):
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    moment.nanos -= moment.nanos % 1000  # What is kept is exact to a microsecond.
    return moment


async def refused(calling):
    """What a caller sees of a refusal."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calling
    return error.value.code(), status.reason_of(error.value), error.value.details()


@pytest.fixture
def call(keys, person):
    """Calls a method of keys as `person`, or with other metadata."""

    async def call(method, metadata=None, **fields):
        request = getattr(pb, f"{method}Request")(**fields)
        caller = person.by_token if metadata is None else metadata
        return await getattr(keys, method)(request, metadata=caller, timeout=5)

    return call


def key_of(answer) -> pb.ApiKey:
    """The key that an answer is: the fields are the same, by number and by name."""
    return pb.ApiKey.FromString(answer.SerializeToString())


async def test_an_account_may_have_so_many_keys_that_are_good(mesh: harness.Mesh):
    limited = replace(mesh, settings={**mesh.settings, "KEYS_PER_ACCOUNT": "3"})
    async with harness.replica(limited, "keys") as second:
        stub = pb_grpc.KeysServiceStub(await second.channel("keys"))
        one, other = [await new_person(mesh) for _ in range(2)]  # Each has one key.

        async def outcome(person: Person, **more: object) -> str:
            request = pb.CreateApiKeyRequest(name="another", **more)
            try:
                await stub.CreateApiKey(request, metadata=person.by_token, timeout=5)
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name} {status.reason_of(error)}"
            return "OK"

        at_once = await asyncio.gather(*[outcome(one) for _ in range(6)])
        revoke = pb.RevokeApiKeyRequest(key_id=one.key_id)
        await stub.RevokeApiKey(revoke, metadata=one.by_token, timeout=5)
        after = [await outcome(one), await outcome(one), await outcome(other)]
    assert sorted(at_once) == ["FAILED_PRECONDITION TOO_MANY_KEYS"] * 4 + ["OK"] * 2
    assert after == ["OK", "FAILED_PRECONDITION TOO_MANY_KEYS", "OK"]


async def test_a_created_key_is_told_whole_and_kept_without_its_secret(call):
    expires_at = in_days(1)
    wanted = {
        **{"name": "CI", "rate_limit_per_minute": 7, "allowed_models": ["fast", "gpt-4o"]},
        **SPENDING,
    }
    made = await call("CreateApiKey", **wanted, expires_at=expires_at)
    got = key_of(await call("GetApiKey", key_id=made.id))
    listed = (await call("ListApiKeys")).api_keys[0]

    kept = pb.ApiKey(
        **wanted,
        id=made.id,
        key_prefix=made.key[:8],
        is_active=True,
        expires_at=expires_at,
        created_at=made.created_at,
    )
    assert made == pb.CreateApiKeyResponse(
        **wanted,
        id=made.id,
        key=made.key,
        key_prefix=made.key[:8],
        is_active=True,
        expires_at=expires_at,
        created_at=made.created_at,
    )
    assert [got, listed] == [kept, kept]
    assert abs(made.created_at.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(seconds=5)


async def test_a_key_without_wishes_gets_the_default_limit_any_model_and_no_end(mesh, call):
    made = await call("CreateApiKey", name="plain")

    assert made.rate_limit_per_minute == int(mesh.settings["RATE_LIMIT_PER_MINUTE"])
    assert not made.allowed_models
    assert not made.HasField("expires_at")
    assert not [field for field in SPENDING if made.HasField(field)]


async def test_money_is_kept_in_whole_nano_dollars(admin_dsn, create):
    made = await create(**SPENDING)
    with psycopg.connect(admin_dsn) as connection:
        columns = "monthly_budget, total_budget, soft_budget"
        (row,) = connection.execute(
            f"SELECT {columns} FROM keys.api_keys WHERE id = %s", [made.id]
        ).fetchall()

    assert row == (10_100_000_000, 999_999_999_999_999, 1)


async def test_a_stolen_table_holds_no_form_of_a_secret(admin_dsn, create):
    made = await create(name="to be stolen")
    raw = made.key.encode()
    random_part = made.key[3:46].encode()
    with psycopg.connect(admin_dsn) as connection:
        rows = connection.execute("SELECT k::text FROM keys.api_keys k").fetchall()
    dump = "\n".join(row[0] for row in rows).lower()

    forms = [
        each.lower()
        for secret in (raw, random_part, raw[3:])
        for each in (
            secret.decode(),
            secret.decode()[::-1],
            secret.hex(),
            base64.b64encode(secret).decode().rstrip("="),
            base64.b16encode(hashlib.sha256(secret).digest()).decode(),
            base64.b64encode(hashlib.sha256(secret).digest()).decode().rstrip("="),
        )
    ]
    assert made.key_prefix.lower() in dump
    assert [form for form in forms if form in dump] == []


async def test_pages_hold_every_key_of_the_caller_once_newest_first(call, create, stranger):
    made = [(await create(name=f"key {number}")).id for number in range(4)]
    everything = [key.id for key in (await call("ListApiKeys", page_size=200)).api_keys]
    pages, token = [], ""
    while not pages or token:
        answer = await call("ListApiKeys", page_size=3, page_token=token)
        pages.append([key.id for key in answer.api_keys])
        token = answer.next_page_token

    assert everything[:4] == made[::-1]
    assert stranger.key_id not in everything
    assert pages == [everything[start : start + 3] for start in range(0, len(everything), 3)]


async def test_a_page_token_of_another_account_is_refused(call, create, stranger):
    await create()
    token = (await call("ListApiKeys", page_size=1)).next_page_token

    answer = await refused(call("ListApiKeys", metadata=stranger.by_token, page_token=token))

    assert answer[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")


@pytest.mark.parametrize(
    ("given", "mask", "changed"),
    [
        ({"name": "new"}, None, {"name": "new"}),
        ({"rate_limit_per_minute": 9}, None, {"rate_limit_per_minute": 9}),
        ({"allowed_models": ["smart"]}, None, {"allowed_models": ["smart"]}),
        ({}, None, {}),
        ({"name": "new", "rate_limit_per_minute": 9}, ["name"], {"name": "new"}),
        ({}, ["allowed_models"], {"allowed_models": []}),
        ({}, ["expires_at"], {"expires_at": None}),
        ({}, ["rate_limit_per_minute"], {"rate_limit_per_minute": 1000}),
        ({"name": "new"}, [], {}),
        ({"token_limit_per_minute": 9}, None, {"token_limit_per_minute": 9}),
        ({"monthly_budget_usd": 0.0}, None, {"monthly_budget_usd": 0.0}),
        ({"soft_budget_usd": 0.1}, ["monthly_budget_usd"], {"monthly_budget_usd": None}),
        ({}, [*SPENDING], dict.fromkeys(SPENDING)),
    ],
    ids=[
        *("name", "limit", "models", "nothing", "only what is masked"),
        *("any model", "no end", "default limit", "empty mask"),
        *("tokens", "no money", "only the masked budget", "no budgets"),
    ],
)
async def test_an_update_changes_what_it_names_and_nothing_else(call, create, given, mask, changed):
    made = await create(
        rate_limit_per_minute=5, allowed_models=["fast"], expires_at=in_days(1), **SPENDING
    )
    before = key_of(await call("GetApiKey", key_id=made.id))
    if mask is not None:
        given = {**given, "update_mask": FieldMask(paths=mask)}
    updated = key_of(await call("UpdateApiKey", key_id=made.id, **given))
    after = key_of(await call("GetApiKey", key_id=made.id))

    expected = pb.ApiKey()
    expected.CopyFrom(before)
    for field, value in changed.items():
        expected.ClearField(field)
        expected.MergeFrom(pb.ApiKey(**{field: value}))
    assert [updated, after] == [expected, expected]


async def test_a_key_that_is_given_more_time_is_active_again(admin_dsn, call, create):
    made = await create(expires_at=in_days(1))
    with psycopg.connect(admin_dsn) as connection:
        connection.execute("UPDATE keys.api_keys SET expires_at = now() WHERE id = %s", [made.id])
    expired = key_of(await call("GetApiKey", key_id=made.id))
    updated = key_of(await call("UpdateApiKey", key_id=made.id, expires_at=in_days(1)))

    assert (expired.is_active, updated.is_active) == (False, True)


async def test_a_revoked_key_stays_as_it_was(call, create):
    made = await create()
    await call("RevokeApiKey", key_id=made.id)
    revoked = key_of(await call("GetApiKey", key_id=made.id))
    updates = [
        await refused(call("UpdateApiKey", key_id=made.id, name="new")),
        await refused(call("UpdateApiKey", key_id=made.id)),
        await refused(call("RotateApiKey", key_id=made.id)),
    ]
    await call("RevokeApiKey", key_id=made.id)

    expected = (grpc.StatusCode.FAILED_PRECONDITION, "KEY_REVOKED", "the key was revoked")
    assert not revoked.is_active
    assert revoked.HasField("revoked_at")
    assert updates == [expected] * 3
    assert key_of(await call("GetApiKey", key_id=made.id)) == revoked


@pytest.mark.parametrize("method", ["GetApiKey", "UpdateApiKey", "RevokeApiKey", "RotateApiKey"])
async def test_a_foreign_key_looks_like_one_that_does_not_exist(call, stranger, method):
    more = {"name": "mine now"} if method == "UpdateApiKey" else {}
    answers = [
        await refused(call(method, key_id=key_id, **more))
        for key_id in (stranger.key_id, str(uuid4()))
    ]
    untouched = await call("GetApiKey", metadata=stranger.by_token, key_id=stranger.key_id)

    assert answers == [(MISSING, "KEY_NOT_FOUND", "no such key")] * 2
    assert (untouched.name, untouched.is_active) == ("test", True)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("CreateApiKey", {"name": "another"}),
        ("GetApiKey", {}),
        ("ListApiKeys", {}),
        ("UpdateApiKey", {"name": "new"}),
        ("RevokeApiKey", {}),
        ("RotateApiKey", {}),
    ],
)
async def test_an_api_key_cannot_manage_keys(call, person, method, fields):
    if method not in ("CreateApiKey", "ListApiKeys"):
        fields = {"key_id": person.key_id, **fields}

    answer = await refused(call(method, metadata=person.by_key, **fields))

    text = "an API key can't do this; use an access token"
    assert answer == (DENIED, "NOT_PERMITTED", text)


@pytest.mark.parametrize(
    ("method", "given", "field"),
    [
        ("CreateApiKey", {}, "name"),
        ("CreateApiKey", {"name": "two\nlines"}, "name"),
        ("CreateApiKey", {"name": "x", "expires_at": in_days(-1)}, "expires_at"),
        ("CreateApiKey", {"name": "x", "expires_at": Timestamp(seconds=2**55)}, "expires_at"),
        ("CreateApiKey", {"name": "x", "rate_limit_per_minute": 0}, "rate_limit_per_minute"),
        ("CreateApiKey", {"name": "x", "allowed_models": ["a", "b c"]}, "allowed_models[1]"),
        ("CreateApiKey", {"name": "x", "allowed_models": ["a", "a"]}, "allowed_models"),
        ("CreateApiKey", {"name": "x", "token_limit_per_minute": 0}, "token_limit_per_minute"),
        ("CreateApiKey", {"name": "x", "monthly_budget_usd": -0.01}, "monthly_budget_usd"),
        ("CreateApiKey", {"name": "x", "total_budget_usd": 1e7}, "total_budget_usd"),
        ("CreateApiKey", {"name": "x", "soft_budget_usd": float("nan")}, "soft_budget_usd"),
        ("GetApiKey", {"key_id": "1"}, "key_id"),
        ("UpdateApiKey", {"update_mask": FieldMask(paths=["name"])}, "name"),
        ("UpdateApiKey", {"update_mask": FieldMask(paths=["digest"])}, "update_mask"),
        ("UpdateApiKey", {"expires_at": in_days(-1)}, "expires_at"),
        ("ListApiKeys", {"page_size": -1}, "page_size"),
    ],
    ids=[
        *("no name", "line feed", "past", "far future", "no calls", "space", "twice"),
        *("no tokens", "negative", "too much", "no number"),
        *("no uuid", "name unset", "not a field", "past again", "size"),
    ],
)
async def test_a_wrong_field_is_named(call, person, method, given, field):
    if method == "UpdateApiKey":
        given = {"key_id": person.key_id, **given}

    code, reason, text = await refused(call(method, **given))

    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert text.startswith(f"{field}: ")


async def test_only_the_edge_may_manage_keys(mesh, person):
    stub = pb_grpc.KeysServiceStub(await mesh.channel("keys", peer="chat"))

    answer = await refused(
        stub.ListApiKeys(pb.ListApiKeysRequest(), metadata=person.by_token, timeout=5)
    )

    assert answer[:2] == (DENIED, "PEER_NOT_ALLOWED")
