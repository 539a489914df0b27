"""What a service that asks keys knows of its caller."""

import asyncio
import time
from dataclasses import replace
from uuid import UUID

import pytest

from khesht.keys.v1 import provider_credentials_service_pb2 as pb
from khesht.keys.v1 import provider_credentials_service_pb2_grpc as pb_grpc
from mesh.access import Caller, Model, Rule
from mesh.calls.call import Call
from mesh.identity.identity import Identity
from mesh.identity.principal import ANONYMOUS_ID, Budget, Principal
from tests import harness
from tests.integration.conftest import new_person

TO_MODEL = Rule(Caller.OPTIONAL, model=lambda request: Model("echo"))
TO_NONE = Rule(Caller.ANY)


@pytest.fixture
async def person(mesh):
    """An account that has stored a key of OpenAI."""
    made = await new_person(mesh)
    stub = pb_grpc.ProviderCredentialsServiceStub(await mesh.channel("keys"))
    request = pb.StoreProviderCredentialRequest(provider="openai", api_key="sk-of-somebody")
    await stub.StoreProviderCredential(request, metadata=made.by_token, timeout=5)
    return made


async def identified(mesh, rule, credential):
    """Who calls with `credential`, as chat sees it."""
    channels = [await mesh.channel(service, peer="chat") for service in ("auth", "keys")]
    metadata = dict(harness.bearer(credential)) if credential else {}
    deadline = asyncio.get_running_loop().time() + 5
    call = Call("/test", metadata, time.perf_counter(), deadline, "request")
    return await Identity(*channels).identify(call, rule, None)


async def test_a_key_comes_with_what_it_may_spend_and_its_owners_providers(mesh, person, create):
    made = await create(
        token_limit_per_minute=900,
        monthly_budget_usd=1.5,
        soft_budget_usd=0,
        allowed_models=["echo"],
    )

    principal = await identified(mesh, TO_MODEL, made.key)

    assert principal == Principal(
        UUID(person.id),
        key_id=UUID(made.id),
        budget=Budget(monthly=1_500_000_000, soft=0),
        token_limit=900,
        allowed_models=frozenset({"echo"}),
        credential_providers=frozenset({"openai"}),
    )


async def test_a_plain_key_comes_without_limits(mesh, person):
    principal = await identified(mesh, TO_NONE, person.key)

    assert principal == Principal(UUID(person.id), key_id=UUID(person.key_id))


async def test_an_access_token_comes_with_its_session_and_providers(mesh, person):
    reading = await identified(mesh, TO_NONE, person.token)
    calling = await identified(mesh, TO_MODEL, person.token)

    assert reading.session_id is not None
    assert not reading.credential_providers
    assert calling == replace(reading, credential_providers=frozenset({"openai"}))


async def test_who_sends_no_credential_is_nobody_with_nothing(mesh):
    assert await identified(mesh, TO_MODEL, "") == Principal(ANONYMOUS_ID)
