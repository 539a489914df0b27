"""Usage is told of everything, whatever one record is like."""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from structlog.testing import capture_logs

from khesht.usage.v1 import usage_internal_service_pb2_grpc as usage_grpc
from mesh import client, db
from mesh.local import postgres
from mesh.local.ports import free_ports
from services.chat.commands.tell import Teller
from services.chat.domain.rows import Consumption
from tests import harness
from tests.integration.conftest import Person
from tests.support import eventually


def used(person: Person, latency_ms: int) -> Consumption:
    return Consumption(
        id=uuid.uuid4(),
        request_id="test",
        user_id=uuid.UUID(person.id),
        key_id=None,
        model="m",
        provider="p",
        prompt_tokens=1,
        completion_tokens=1,
        prompt_price=0,
        completion_price=0,
        status="completed",
        basis="provider",
        latency_ms=latency_ms,
        created_at=datetime.now(UTC),
    )


async def test_what_can_not_be_told_keeps_nothing_else_from_usage(
    mesh: harness.Mesh, admin_dsn: str, person: Person, records
):
    url = postgres.service_dsn(admin_dsn, "chat", harness.SECRET)
    usage = usage_grpc.UsageInternalServiceStub(await mesh.channel("usage", "chat"))
    async with db.opened(url) as database, Teller(database, usage).at_work() as teller:
        for latency_ms in (1, 1 << 40, 2):
            teller.tell(used(person, latency_ms))
        assert {record.latency_ms for record in await records(2)} == {1, 2}
        teller.tell(used(person, 3))
        assert {record.latency_ms for record in await records(3)} == {1, 2, 3}


OWED = """
INSERT INTO chat.generations (id, caller_id, user_id, request_id, model, provider, prompt_price,
  completion_price, prompt_estimate, status, created_at, prompt_tokens, completion_tokens, basis,
  latency_ms, ended_at, owed)
SELECT gen_random_uuid(), %(user)s, %(user)s, 'test', 'm', 'p', 0, 0, 0, 'completed', now(), 1, 1,
  'provider', 1, now(), true
FROM generate_series(1, %(count)s)
"""


async def test_while_usage_is_away_it_is_not_asked_about_all_that_it_is_owed(
    mesh: harness.Mesh, admin_dsn: str, person: Person
):
    own = harness.new_database(admin_dsn, f"owed_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(own) as connection:
        connection.execute(OWED, {"user": person.id, "count": 2_000})
    url = postgres.service_dsn(own, "chat", harness.SECRET)
    (nowhere,) = free_ports(1)
    with capture_logs() as logs:
        async with (
            client.channel("usage", f"127.0.0.1:{nowhere}", mesh.certificate("chat")) as channel,
            db.opened(url) as database,
        ):
            usage = usage_grpc.UsageInternalServiceStub(channel)
            async with Teller(database, usage).at_work() as teller:
                teller.tell(used(person, 1))
                await eventually(lambda: any(line.get("records") == 1 for line in logs), within=20)
    swept = [line for line in logs if line.get("records") == 200]
    assert len(swept) == 3


@pytest.fixture
def full_balance(admin_dsn: str, stranger: Person) -> Iterator[None]:
    """A balance of `stranger` to which nothing can be added, gone after the test."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO usage.balances VALUES ('user', %s, 'total', 9223372036854775807, 0)",
            [stranger.id],
        )
        yield
        connection.execute("DELETE FROM usage.balances WHERE scope_id = %s", [stranger.id])


@pytest.mark.usefixtures("full_balance")
async def test_a_record_that_breaks_usage_keeps_no_other_from_it(
    mesh: harness.Mesh, admin_dsn: str, person: Person, stranger: Person
):
    url = postgres.service_dsn(admin_dsn, "chat", harness.SECRET)
    usage = usage_grpc.UsageInternalServiceStub(await mesh.channel("usage", "chat"))
    with psycopg.connect(admin_dsn, autocommit=True) as connection:

        def recorded() -> int:
            query = "SELECT count(*) FROM usage.usage_records WHERE user_id = %s"
            row = connection.execute(query, [person.id]).fetchone()
            return row[0] if row else 0

        async with db.opened(url) as database, Teller(database, usage).at_work() as teller:
            breaking = replace(used(stranger, 1), completion_price=1_000_000)
            for each in (used(person, 1), breaking, used(person, 2)):
                teller.tell(each)
            await eventually(lambda: recorded() == 2, within=30)
