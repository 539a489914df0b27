"""A connection to PostgreSQL without SQLAlchemy, for the few statements that every request needs.

A statement takes about 50 µs of CPU of its process here, and 400 by `Database.run_one`,
most of them to check a connection out and in, and to cross into a greenlet and back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Dialect, Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from mesh import db

T = TypeVar("T")

_dialect: Dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy does not say
# A statement is planned once, maybe while its tables were empty. These go by keys.
_BY_KEY = " -c enable_seqscan=off"
_CONNECT_ARGS: dict[str, Any] = {
    **db.CONNECT_ARGS,
    "options": f"{db.CONNECT_ARGS['options']}{_BY_KEY}",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement returned, and how many rows it was about."""

    rows: Sequence[tuple[Any, ...]]
    rowcount: int

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """The rows."""
        return iter(self.rows)


class Lane:
    """One connection, opened when first needed. What comes meanwhile waits its turn."""

    def __init__(self, url: str) -> None:
        """Goes to the database at `url` (postgresql://…)."""
        self._url = url
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection | None = None
        self._texts: dict[Executable, str] = {}

    async def run(self, work: Callable[["Lane"], Awaitable[T]]) -> T:
        """What `work` returns; each statement in it is a transaction by itself.

        Runs it again, and raises, as `Database.run` does, but errors are psycopg's own.
        """
        limit = db.answer_until()
        return await db.retried(lambda: self._once(work, limit), limit)

    async def execute(self, statement: Executable, parameters: Mapping[str, Any]) -> Answer:
        """Runs `statement` as part of a `work`.

        It should be the same object each time, with no values but `parameters`.
        """
        if self._connection is None:
            raise RuntimeError("a lane executes what it runs")
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = str(statement.compile(dialect=_dialect))  # type: ignore[attr-defined]  # all that are executed can be
        cursor = await self._connection.execute(text.encode(), parameters, prepare=True)
        rows = await cursor.fetchall() if cursor.description else []
        return Answer(rows, cursor.rowcount)

    async def close(self) -> None:
        """Closes the connection. What runs later opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _once(self, work: Callable[["Lane"], Awaitable[T]], limit: float) -> T:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout_at(limit):
                await stack.enter_async_context(self._turn)
                if self._connection is None:
                    self._connection = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, **_CONNECT_ARGS
                    )
            try:
                with db.cut_at(limit) as waiting:
                    waiting.append(self._connection)
                    return await work(self)
            except (psycopg.OperationalError, asyncio.CancelledError):
                await self.close()  # It may be broken, or amid an answer.
                raise


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Lane]:
    """A lane to `url`, closed at the end."""
    lane = Lane(url)
    try:
        yield lane
    finally:
        await lane.close()
