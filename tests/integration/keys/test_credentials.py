"""Stored keys of providers: write-only for their owners, read by those who call providers."""

from dataclasses import replace
from uuid import uuid4

import grpc
import psycopg
import pytest
import structlog

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_grpc
from khesht.keys.v1 import provider_credentials_service_pb2 as pb
from khesht.keys.v1 import provider_credentials_service_pb2_grpc as pb_grpc
from mesh import status
from services.keys import cache
from services.keys.domain.credentials import MOST_PROVIDERS
from tests import harness
from tests.integration.conftest import new_person
from tests.integration.keys.conftest import asking
from tests.support import eventually

KEY = "sk-proj-of-somebody-1234"
MISSING = (grpc.StatusCode.NOT_FOUND, "CREDENTIAL_NOT_FOUND")


@pytest.fixture
async def person(mesh):
    return await new_person(mesh)


@pytest.fixture
def call(mesh, person):
    """Calls a method as `person`, or with other metadata."""

    async def call(method, metadata=None, **fields):
        stub = pb_grpc.ProviderCredentialsServiceStub(await mesh.channel("keys"))
        request = getattr(pb, f"{method}ProviderCredential{'s' * (method == 'List')}Request")
        caller = person.by_token if metadata is None else metadata
        name = f"{method}ProviderCredential{'s' * (method == 'List')}"
        return await getattr(stub, name)(request(**fields), metadata=caller, timeout=5)

    return call


@pytest.fixture
async def reveal(mesh):
    return await revealing(mesh)


async def revealing(mesh, peer="chat"):
    stub = internal_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer=peer))

    async def reveal(user_id, provider="openai"):
        request = internal_pb.GetProviderCredentialRequest(user_id=user_id, provider=provider)
        return (await stub.GetProviderCredential(request, timeout=5)).api_key

    return reveal


async def refused(calling):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await calling
    return error.value.code(), status.reason_of(error.value)


async def test_a_stored_credential_is_shown_by_its_last_four_and_given_to_chat(
    call, reveal, person
):
    made = await call("Store", provider="openai", api_key=KEY)
    listed = (await call("List")).provider_credentials

    assert made == pb.StoreProviderCredentialResponse(
        id=made.id, provider="openai", last_four="1234", version=1, created_at=made.created_at
    )
    assert [each.SerializeToString() for each in listed] == [made.SerializeToString()]
    assert await reveal(person.id) == KEY


async def test_another_one_takes_its_place_as_the_next_version(call, reveal, person):
    first = await call("Store", provider="openai", api_key=KEY)
    second = await call("Store", provider="openai", api_key="sk-another-one-9876")

    assert (second.version, second.last_four) == (2, "9876")
    assert second.id != first.id
    assert len((await call("List")).provider_credentials) == 1
    assert await reveal(person.id) == "sk-another-one-9876"


@pytest.mark.parametrize("by", ["provider", "id"])
async def test_a_deleted_one_is_gone(call, reveal, person, by):
    made = await call("Store", provider="openai", api_key=KEY)
    await call("Delete", provider=getattr(made, by))

    assert not (await call("List")).provider_credentials
    assert await refused(reveal(person.id)) == MISSING
    assert await refused(call("Delete", provider="openai")) == MISSING


async def test_pages_go_by_name_of_provider(call):
    for name, start in (("zeta", ""), ("groq", "gsk_"), ("openai", "sk-")):
        await call("Store", provider=name, api_key=f"{start}of-somebody-else")
    first = await call("List", page_size=2)
    rest = await call("List", page_size=2, page_token=first.next_page_token)

    pages = [[each.provider for each in page.provider_credentials] for page in (first, rest)]
    assert pages == [["groq", "openai"], ["zeta"]]
    assert not rest.next_page_token


async def test_others_neither_see_nor_delete_it(call, stranger, reveal, person):
    made = await call("Store", provider="openai", api_key=KEY)

    assert not (await call("List", metadata=stranger.by_token)).provider_credentials
    for named in ("openai", made.id):
        gone = call("Delete", metadata=stranger.by_token, provider=named)
        assert await refused(gone) == MISSING
    assert await refused(reveal(stranger.id)) == MISSING
    assert await reveal(person.id) == KEY


async def test_the_key_must_begin_as_the_providers_do(call):
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await call("Store", provider="openai", api_key="gsk_of-somebody-else")

    assert wrong.value.details() == "api_key: API key must start with sk-"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"provider": "openai"}, "api_key"),
        ({"provider": "openai", "api_key": "sk-short"}, "api_key"),
        ({"provider": "openai", "api_key": "sk-with a space in it"}, "api_key"),
        ({"provider": "Open AI", "api_key": KEY}, "provider"),
        ({"api_key": KEY}, "provider"),
    ],
    ids=["none", "short", "space", "name", "no name"],
)
async def test_a_wrong_field_is_named_and_what_it_holds_is_not_told(call, fields, field):
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await call("Store", **fields)

    assert status.reason_of(wrong.value) == "INVALID_FIELDS"
    assert wrong.value.details().startswith(f"{field}: ")
    assert not fields.get("api_key") or fields["api_key"] not in repr(wrong.value)


async def test_an_account_has_so_many_and_no_more(call):
    for number in range(MOST_PROVIDERS):
        await call("Store", provider=f"own-{number}", api_key=KEY)
    again = await call("Store", provider="own-0", api_key=KEY)

    assert again.version == 2
    assert await refused(call("Store", provider="own-more", api_key=KEY)) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "TOO_MANY_CREDENTIALS",
    )


@pytest.mark.parametrize("method", ["Store", "List", "Delete"])
async def test_an_api_key_can_do_none_of_it(call, person, method):
    fields = {"Store": {"provider": "openai", "api_key": KEY}, "Delete": {"provider": "openai"}}
    answer = refused(call(method, metadata=person.by_key, **fields.get(method, {})))

    assert await answer == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED")


@pytest.mark.parametrize("peer", ["edge", "usage", "operator"])
async def test_only_those_who_call_providers_are_given_it(mesh, call, person, peer):
    await call("Store", provider="openai", api_key=KEY)
    reveal = await revealing(mesh, peer)

    answer = await refused(reveal(person.id))
    assert answer == (grpc.StatusCode.PERMISSION_DENIED, "PEER_NOT_ALLOWED")


async def test_a_stolen_table_and_the_log_hold_nothing_of_it(call, reveal, person, admin_dsn):
    with structlog.testing.capture_logs() as lines:
        await call("Store", provider="openai", api_key=KEY)
        await reveal(person.id)
    with psycopg.connect(admin_dsn) as connection:
        rows = connection.execute("SELECT c::text FROM keys.provider_credentials c").fetchall()

    assert len(lines) >= 2
    for part in (KEY[:-4], KEY.encode().hex()):
        assert part not in repr(rows) + repr(lines)


async def test_a_ciphertext_moved_to_another_account_or_version_does_not_decrypt(
    call, stranger, reveal, person, admin_dsn
):
    await call("Store", provider="openai", api_key=KEY)
    await call("Store", metadata=stranger.by_token, provider="openai", api_key=f"{KEY}-other")
    with psycopg.connect(admin_dsn) as connection:
        connection.execute(
            "UPDATE keys.provider_credentials t SET sealed = f.sealed"
            " FROM keys.provider_credentials f WHERE t.owner_id = %s AND f.owner_id = %s",
            [stranger.id, person.id],
        )
        connection.execute(
            "UPDATE keys.provider_credentials SET version = 2 WHERE owner_id = %s", [person.id]
        )
    unreadable = (grpc.StatusCode.FAILED_PRECONDITION, "CREDENTIAL_UNREADABLE")

    assert await refused(reveal(stranger.id)) == unreadable
    assert await refused(reveal(person.id)) == unreadable


async def test_with_the_secret_of_before_it_is_read_and_encrypted_with_that_of_now(
    mesh, call, person, monkeypatch
):
    await call("Store", provider="openai", api_key=KEY)
    own = replace(mesh, settings={**mesh.settings, "SECRET_KEY_PREVIOUS": harness.SECRET})
    before = harness.topology.environment

    def with_new_secret(*told):
        made = before(*told)
        return {**made, "SECRET_KEY": "another secret of the service, which is new"}

    monkeypatch.setattr(harness.topology, "environment", with_new_secret)
    async with harness.replica(own, "keys") as told, harness.replica(mesh, "keys") as untold:
        both, new_alone = await revealing(told), await revealing(untold)
        before = await refused(new_alone(person.id))
        read = await both(person.id)
        after = await new_alone(person.id)

    assert before[1] == "CREDENTIAL_UNREADABLE"
    # It was used, and so encrypted anew.
    assert (read, after) == (KEY, KEY)


async def test_callers_are_told_for_which_providers_they_have_one(call, authorize, person):
    none = await authorize(person.key, model="echo")
    await call("Store", provider="openai", api_key=KEY)
    one = await authorize(person.key, model="echo")
    await call("Store", provider="groq", api_key="gsk_of-somebody")
    two = [await authorize(person.key, model="echo"), await authorize(user_id=person.id, model="x")]
    await call("Delete", provider="openai")
    last = await authorize(person.key, model="echo")

    answers = [list(each.credential_providers) for each in (none, one, *two, last)]
    assert answers == [[], ["openai"], ["groq", "openai"], ["groq", "openai"], ["groq"]]
    assert not (await authorize(person.key)).credential_providers
    assert not (await authorize(user_id=str(uuid4()), model="echo")).credential_providers


async def test_other_replicas_are_told(mesh, call, person, monkeypatch):
    monkeypatch.setattr(cache, "REFRESH_EVERY", 600)
    monkeypatch.setattr(cache, "LIFETIME", 600)
    async with harness.replica(mesh, "keys") as other:
        authorize = await asking(other)
        before = await authorize(person.key, model="echo")
        await call("Store", provider="openai", api_key=KEY)

        async def told():
            answer = await authorize(person.key, model="echo")
            return list(answer.credential_providers) == ["openai"]

        await eventually(told, within=2)
    assert not before.credential_providers
