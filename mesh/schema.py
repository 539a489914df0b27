"""Whether a service's schema is the one that its code was written for."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.db import Database

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("schema")

# What is added runs before the code that needs it, what is removed after it: 0004_pre_tokens.py.
_ADDS = re.compile(r"(\d{4})_pre_\w+\.py")


def needed(service: Path) -> str:
    """The newest migration that the code of a service needs, by its folder."""
    names = (path.name for path in (service / "migrations" / "versions").iterdir())
    return max(found[1] for name in names if (found := _ADDS.fullmatch(name)))


def ready(database: Database, service: Path) -> Callable[[], Awaitable[bool]]:
    """A check of readiness: the database answers, and has all migrations that the code needs.

    Newer ones do no harm: code runs on both sides of each.
    """
    wanted = needed(service)
    told = ""

    async def version(connection: AsyncConnection) -> str:
        found = await connection.execute(text("SELECT version_num FROM alembic_version"))
        return str(found.scalar() or "")

    async def check() -> bool:
        nonlocal told
        there = await database.answer(version)
        if there is not None and there < wanted and there != told:
            log.error("the schema is too old: run khesht migrate", version=there, needed=wanted)
        told = there or told
        return there is not None and there >= wanted

    return check
