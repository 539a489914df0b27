"""The schemas that migrations make, against the tables that the code knows."""

from importlib import import_module

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine
from sqlalchemy.pool import NullPool

from mesh.local import postgres
from tests import harness
from tests.contract.described import SERVICES


def _ours(name: str | None, *_: object) -> bool:
    """Whether a table is of our making, and not of the queue's."""
    return not (name or "").startswith("procrastinate_")


def differences(admin_dsn: str, service: str, metadata: MetaData) -> list[object]:
    url = postgres.service_dsn(admin_dsn, service, harness.SECRET)
    url = url.replace("postgresql://", "postgresql+psycopg://")
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_name": _ours}
        )
        return compare_metadata(context, metadata)


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_make_the_tables_that_the_code_knows(admin_dsn: str, service: str):
    metadata: MetaData = import_module(f"services.{service}.tables").metadata
    assert metadata.tables
    assert differences(admin_dsn, service, metadata) == []


def test_a_table_that_no_migration_makes_is_seen(admin_dsn: str):
    assert differences(admin_dsn, "items", MetaData()) != []
