"""The schema that migrations make."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from mesh.local import postgres
from services.keys.tables import metadata
from tests import harness


def test_migrations_make_the_tables_that_the_code_knows(admin_dsn):
    url = postgres.service_dsn(admin_dsn, "keys", harness.SECRET)
    url = url.replace("postgresql://", "postgresql+psycopg://")
    with create_engine(url, poolclass=NullPool).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []
