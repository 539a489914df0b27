"""Stubs of chat, and the usage records of a test's own account."""

import pytest

from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from tests.harness import Mesh
from tests.integration.conftest import Person
from tests.support import eventually


@pytest.fixture
async def chat(mesh: Mesh) -> pb_grpc.ChatServiceStub:
    return pb_grpc.ChatServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def records(mesh: Mesh, person: Person):
    """Asks for the person's usage records until there are so many."""
    usage = usage_grpc.UsageServiceStub(await mesh.channel("usage"))

    async def ask(count: int, within: float = 5.0) -> list[usage_pb.UsageRecord]:
        async def found() -> list[usage_pb.UsageRecord]:
            listed = await usage.ListUsage(
                usage_pb.ListUsageRequest(), timeout=5, metadata=person.by_token
            )
            return list(listed.records) if len(listed.records) >= count else []

        return await eventually(found, within)

    return ask
