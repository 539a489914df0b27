"""Keys as its callers reach it: the edge manages, another service asks."""

from collections.abc import Awaitable, Callable

import pytest

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_pb_grpc
from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from tests import harness
from tests.integration.conftest import Person, new_person

Create = Callable[..., Awaitable[pb.CreateApiKeyResponse]]
Authorize = Callable[..., Awaitable[internal_pb.AuthorizeResponse]]


@pytest.fixture(scope="module")
async def person(mesh: harness.Mesh) -> Person:
    """An account that the tests of a module share: to register costs more than they do."""
    return await new_person(mesh)


@pytest.fixture(scope="module")
async def stranger(mesh: harness.Mesh) -> Person:
    return await new_person(mesh)


@pytest.fixture(scope="session")
async def keys(mesh: harness.Mesh) -> pb_grpc.KeysServiceStub:
    return pb_grpc.KeysServiceStub(await mesh.channel("keys"))


@pytest.fixture(scope="session")
async def authorize(mesh: harness.Mesh) -> Authorize:
    return await asking(mesh)


async def asking(mesh: harness.Mesh) -> Authorize:
    """Calls Authorize of the keys of `mesh`, as chat."""
    stub = internal_pb_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer="chat"))

    async def authorize(api_key: str = "", **asked: object) -> internal_pb.AuthorizeResponse:
        if api_key:
            asked["api_key"] = api_key
        return await stub.Authorize(internal_pb.AuthorizeRequest(**asked), timeout=3)

    return authorize


@pytest.fixture
def create(keys: pb_grpc.KeysServiceStub, person: Person) -> Create:
    """Creates a key of `person`."""

    async def create(**wanted: object) -> pb.CreateApiKeyResponse:
        request = pb.CreateApiKeyRequest(**{"name": "made", **wanted})
        return await keys.CreateApiKey(request, metadata=person.by_token, timeout=5)

    return create
