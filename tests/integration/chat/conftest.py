"""Stubs of chat, and the usage records of a test's own account."""

import uuid
from collections.abc import Iterator

import psycopg
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


@pytest.fixture
def clean_up(admin_dsn: str, person: Person) -> Iterator[None]:
    """Takes away what a test leaves of `person`, however it ends: jobs and generations."""
    yield
    forget_generations(admin_dsn, person.id)


@pytest.fixture
def user(admin_dsn: str) -> Iterator[uuid.UUID]:
    """The id of nobody that auth knows; what generations it has go with the test."""
    user = uuid.uuid4()
    yield user
    forget_generations(admin_dsn, str(user))


def forget_generations(admin_dsn: str, user_id: str) -> None:
    """Deletes an account's generations, and the jobs of its tasks."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute("SET search_path TO chat")
        connection.execute(
            "DELETE FROM procrastinate_jobs WHERE args->>'task_id' IN"
            " (SELECT id::text FROM generations WHERE user_id = %s)",
            [user_id],
        )
        connection.execute("DELETE FROM generations WHERE user_id = %s", [user_id])
