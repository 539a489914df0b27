"""Brings a service's schema up to date (Alembic), under a lock, one at a time."""

from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

# Any number, the same everywhere: two migrations of one database wait for each other.
_LOCK = 7_240_151


def upgrade(service: str, folder: Path, url: str) -> list[str]:
    """Runs the migrations in `folder` that `url` lacks; returns their ids, in order.

    `url` is of the service's own role, whose schema is called like the service.
    """
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool
    )
    done: list[str] = []
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        _upgrade(connection, service, folder, done)
    engine.dispose()
    return done


def _upgrade(connection: Connection, service: str, folder: Path, done: list[str]) -> None:
    config = Config()
    config.set_main_option("script_location", str(folder))
    scripts = ScriptDirectory.from_config(config)

    def steps(revision: Any, _: object) -> Any:  # noqa: ANN401 - as Alembic types it
        return scripts._upgrade_revs("head", revision)

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(
            connection=connection,
            version_table_schema=service,
            transaction_per_migration=True,
            on_version_apply=lambda *, step, **_: done.append(step.up_revision_id),
        )
        environment.run_migrations()
