"""What nobody foresaw: callers get an id, and the log has the rest."""

from dataclasses import replace

import grpc
import psycopg
import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict

from khesht.items.v1 import items_service_pb2 as pb
from tests import harness
from tests.integration.conftest import Person, new_person
from tests.integration.mesh.rpc import Outcome, channel, credentials_of, outcome
from tests.support import eventually

CREATE = "/khesht.items.v1.ItemsService/CreateItem"
CANARY = "canary-in-a-parameter"


@pytest.fixture(scope="module")
async def person(mesh: harness.Mesh) -> Person:
    """One account for all tests here: to register costs more than they do."""
    return await new_person(mesh)


@pytest.fixture(scope="module")
async def broken(mesh: harness.Mesh, admin_dsn: str):
    """Items on a database of its own, from which somebody dropped the table."""
    own = harness.new_database(admin_dsn, "without_a_table")
    async with harness.replica(replace(mesh, admin_dsn=own), "items") as replica:
        with psycopg.connect(own, autocommit=True) as connection:
            connection.execute("DROP TABLE items.items")
        yield replica


async def failing(
    broken: harness.Mesh, person: Person, *metadata: tuple[str, str]
) -> tuple[Outcome, list[EventDict]]:
    """How a call ends there, and what is logged meanwhile."""
    request = pb.CreateItemRequest(name=CANARY, price=1).SerializeToString()
    async with channel(broken, "items", credentials_of(broken, "edge")) as opened:
        with capture_logs() as logged:
            ended = await outcome(opened, CREATE, request, metadata=(*person.by_token, *metadata))
            await eventually(
                lambda: CREATE in [each["rpc"] for each in logged if each["event"] == "rpc"]
            )
    return ended, logged


async def test_callers_get_an_id_that_stands_in_the_log(broken: harness.Mesh, person: Person):
    ended, logged = await failing(broken, person)
    assert (ended.code, ended.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    (error,) = [each for each in logged if each["log_level"] == "error"]
    assert error["event"].startswith("internal error ")
    assert ended.text.startswith(error["event"] + " ")
    assert error["rpc"] == CREATE
    assert "UndefinedTable" in repr(error["exc_info"])
    (line,) = [each for each in logged if each["event"] == "rpc" and each["rpc"] == CREATE]
    assert (line["code"], line["reason"]) == ("INTERNAL", "INTERNAL")


async def test_no_statement_parameter_or_address_leaves(broken: harness.Mesh, person: Person):
    transcoded = ("x-envoy-original-path", "/items")
    ended, logged = await failing(broken, person, transcoded)
    assert "khesht-error" in ended.text
    for secret in ("INSERT", "items.items", "psycopg", "sqlalchemy", "127.0.0.1", CANARY, ".py"):
        assert secret not in ended.text, secret
    (error,) = [each for each in logged if each["log_level"] == "error"]
    assert CANARY not in repr(error) + str(error["exc_info"])
