"""Usage is told of everything, whatever one record is like."""

import uuid
from datetime import UTC, datetime

from khesht.usage.v1 import usage_internal_service_pb2_grpc as usage_grpc
from mesh import db
from mesh.local import postgres
from services.chat.commands.tell import Teller
from services.chat.domain.rows import Consumption
from tests import harness
from tests.integration.conftest import Person


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
