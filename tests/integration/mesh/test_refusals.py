"""Refusals arrive whole, however much is wrong."""

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from tests.harness import Mesh
from tests.integration.conftest import Person
from tests.integration.mesh.rpc import channel, credentials_of, outcome

REPLY = "/khesht.chat.v1.ChatService/CreateReply"


@pytest.mark.parametrize("turns", [1, 50, 1_000])
async def test_a_request_with_many_wrong_fields_is_told_what_is_wrong(
    mesh: Mesh, person: Person, turns: int
):
    wrong = pb.CreateReplyRequest(messages=[pb.Turn(role="king", content="x")] * turns)
    transcoded = ("x-envoy-original-path", "/chat")
    for metadata in (person.by_key, (*person.by_key, transcoded)):
        async with channel(mesh, "chat", credentials_of(mesh, "edge")) as opened:
            ended = await outcome(opened, REPLY, wrong.SerializeToString(), metadata=metadata)
        assert (ended.code, ended.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELDS",
        )
        assert "messages[0].role" in ended.text
