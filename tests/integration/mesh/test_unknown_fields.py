"""What the setting UNKNOWN_FIELDS makes of fields that a message has not."""

from dataclasses import replace

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from khesht.items.v1 import items_service_pb2 as pb
from khesht.items.v1 import items_service_pb2_grpc as pb_grpc
from mesh import status
from tests import harness
from tests.integration.conftest import Person
from tests.integration.mesh.rpc import channel, credentials_of

# As the edge tells of a body that came by REST.
TOLD = (("x-envoy-original-path", "/items"), ("x-khesht-names", "name,prise,price"))


async def created(mesh: harness.Mesh, person: Person) -> grpc.aio.Metadata:
    """The headers of the answer to a request with an unknown field."""
    async with channel(mesh, "items", credentials_of(mesh, "edge")) as opened:
        call = pb_grpc.ItemsServiceStub(opened).CreateItem(
            pb.CreateItemRequest(name="x", price=1), metadata=(*person.by_key, *TOLD), timeout=5
        )
        await call
        return await call.initial_metadata()


async def test_they_are_refused_unless_the_operator_says_otherwise(
    mesh: harness.Mesh, person: Person
):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await created(mesh, person)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (status.reason_of(refused.value), refused.value.details()) == (
        *("INVALID_FIELDS", "prise: no such field"),
    )


async def test_they_are_named_in_the_answer_where_the_operator_wants_that(
    mesh: harness.Mesh, person: Person
):
    settings = {**mesh.settings, "UNKNOWN_FIELDS": "warn"}
    async with harness.replica(replace(mesh, settings=settings), "items") as lenient:
        headers = dict(await created(lenient, person))
    assert headers["x-khesht-warning"] == "unknown-fields: prise"


async def test_a_warning_stays_beside_those_of_a_reply(mesh: harness.Mesh, person: Person):
    settings = {**mesh.settings, "UNKNOWN_FIELDS": "warn"}
    told = (("x-envoy-original-path", "/chat"), ("x-khesht-names", "message,model,foo"))
    async with (
        harness.replica(replace(mesh, settings=settings), "chat") as lenient,
        channel(lenient, "chat", credentials_of(lenient, "edge")) as opened,
    ):
        call = chat_grpc.ChatServiceStub(opened).CreateReply(
            chat_pb.CreateReplyRequest(message="Hi", model="echo"),
            metadata=(*person.by_key, *told),
            timeout=5,
        )
        await call
        headers = dict(await call.initial_metadata())
    assert headers["x-khesht-warning"] == "unknown-fields: foo"
