"""Readiness looks for the schema that the code was written for."""

from collections.abc import Iterator

import psycopg
import pytest

from mesh import schema
from tests.contract.described import ROOT
from tests.harness import Mesh
from tests.support import eventually

SERVICES = ("auth", "keys", "usage", "items", "chat")


@pytest.fixture(params=SERVICES)
def versioned(request: pytest.FixtureRequest, admin_dsn: str) -> Iterator[tuple[str, str]]:
    """A service and the version of its schema, which is put back at the end."""
    service = request.param
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        table = f"{service}.alembic_version"
        row = connection.execute(f"SELECT version_num FROM {table}").fetchone()
        assert row is not None
        yield service, row[0]
        connection.execute(f"UPDATE {table} SET version_num = %s", row)


def set_version(admin_dsn: str, service: str, version: str) -> None:
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        query = f"UPDATE {service}.alembic_version SET version_num = %s"
        connection.execute(query, [version])


async def test_a_service_waits_for_its_migrations(
    mesh: Mesh, admin_dsn: str, versioned: tuple[str, str]
):
    service, version = versioned
    server = mesh.servers[service]
    assert version == schema.needed(ROOT / "services" / service)
    set_version(admin_dsn, service, "0000")
    await eventually(lambda: not server.is_ready, within=10)
    set_version(admin_dsn, service, version)
    await eventually(lambda: server.is_ready, within=10)


async def test_a_newer_schema_does_no_harm(mesh: Mesh, admin_dsn: str, versioned: tuple[str, str]):
    service, _ = versioned
    set_version(admin_dsn, service, "9999")
    check = mesh.servers[service]._checks[0]
    assert await check()
