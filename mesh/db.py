"""PostgreSQL: one engine per process, and transactions that survive its restarts."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import TypeVar

import psycopg
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from mesh import errors
from mesh.config import ServiceSettings

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("db")

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

# Lost connections, a server that starts or stops, serialization failures and
# deadlocks: the whole transaction may be run again.
_WORTH_RETRYING = ("08", "57P0", "40001", "40P01", "53300")
# What a caller waits for at most, whatever has to be tried again: a server that is frozen
# takes connections and statements, and answers nothing.
ANSWER_WITHIN_S = 4.0
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
# A statement or a lock took longer than CONNECT_ARGS allows: another try would, too.
_TOO_LATE = ("57014", "55P03")
# The disk is full, or all is read-only: it will pass, but not in 2 seconds.
_NO_WRITES = ("53100", "25006")

CONNECT_ARGS = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 5000,
    "options": "-c statement_timeout=5000 -c lock_timeout=2000"
    " -c idle_in_transaction_session_timeout=10000",
}


class Database:
    """Runs transactions on one PostgreSQL."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Takes an engine, which `opened` makes and disposes of."""
        self._engine = engine
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def run(self, work: Work[T]) -> T:
        """What `work` returns, run in one transaction and committed.

        Runs it again from its start when the connection or the server was lost,
        up to five times within 2 seconds: `work` must tell a first run from a
        repeated one by its own ids. Raises Unavailable after that, after
        ANSWER_WITHIN_S, or at once when nothing can be written, and whatever `work`
        raises.
        """
        limit = answer_until()
        return await retried(lambda: self._in(self._engine.begin, work, limit), limit)

    async def run_one(self, work: Work[T]) -> T:
        """As `run`, for work of one statement: it is a transaction by itself.

        That saves the round trips of BEGIN and COMMIT.
        """
        limit = answer_until()
        return await retried(lambda: self._in(self._single.connect, work, limit), limit)

    async def _in(
        self,
        opened: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        work: Work[T],
        limit: float,
    ) -> T:
        with cut_at(limit) as waiting:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout_at(limit):
                    connection = await stack.enter_async_context(opened())
                waiting.append(_of_psycopg(connection))
                return await work(connection)

    async def answer(self, work: Work[T]) -> T | None:
        """What `work` returns, tried once; None when the database has no answer in 2 seconds."""
        limit = asyncio.get_running_loop().time() + 2
        try:
            return await self._in(self._engine.connect, work, limit)
        except (DBAPIError, PoolTimeoutError, TimeoutError):
            return None


@asynccontextmanager
async def opened(url: str, *, pool_size: int = 10) -> AsyncIterator[Database]:
    """A database at `url` (postgresql://…), closed at the end.

    There is no ping before use: `Database.run` runs again what met a dead
    connection, and that costs nothing while all is well.
    """
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=3,
        pool_recycle=1800,
        # Errors are logged, and parameters may be passwords' hashes or what people said.
        hide_parameters=True,
        connect_args=CONNECT_ARGS,
    )
    try:
        yield Database(engine)
    finally:
        await engine.dispose()


def of(config: ServiceSettings) -> AbstractAsyncContextManager[Database]:
    """The database that a service is told of."""
    url = config.database_url.get_secret_value()
    return opened(url, pool_size=config.database_connections)


def answer_until() -> float:
    """By which time of the loop what is asked now has its answer, or is given up."""
    return asyncio.get_running_loop().time() + ANSWER_WITHIN_S


@contextmanager
def cut_at(limit: float) -> Iterator[list[psycopg.AsyncConnection]]:
    """Breaks the connections that are put into the list, if it is still open at `limit`.

    What waits for them gets an OperationalError at once. To cancel it would not do: psycopg
    then asks the server to stop, and waits up to 10 seconds for one that is frozen.
    """
    waiting: list[psycopg.AsyncConnection] = []

    def cut() -> None:
        for connection in waiting:
            with suppress(OSError, psycopg.Error), _socket_of(connection) as of_server:
                of_server.shutdown(socket.SHUT_RDWR)

    handle = asyncio.get_running_loop().call_at(limit, cut)
    try:
        yield waiting
    finally:
        handle.cancel()


async def retried(attempt: Callable[[], Awaitable[T]], limit: float) -> T:
    """What `attempt` returns, tried again as `Database.run` says, until `limit` of the loop's time.

    Raises as it does.
    """
    time = asyncio.get_running_loop().time
    for pause in (*_PAUSES, None):
        try:
            return await attempt()
        except TimeoutError:
            raise _no_answer("TimeoutError") from None
        except (DBAPIError, PoolTimeoutError, psycopg.Error) as error:
            late = _sqlstate(error) in _TOO_LATE + _NO_WRITES
            if not late and not _is_passing(error):
                raise
            if late or pause is None or time() + pause >= limit:
                raise _no_answer(type(error).__name__) from None
            await asyncio.sleep(pause)
    raise AssertionError("the last round returns or raises")


def _no_answer(error: str) -> errors.Unavailable:
    log.warning("database does not answer", error=error)
    return errors.Unavailable("UNAVAILABLE", "the database does not answer", retry_after=1)


def _of_psycopg(connection: AsyncConnection) -> psycopg.AsyncConnection:
    assert connection.sync_connection is not None
    driver = connection.sync_connection.connection.driver_connection
    assert isinstance(driver, psycopg.AsyncConnection)
    return driver


def _socket_of(connection: psycopg.AsyncConnection) -> socket.socket:
    return socket.socket(fileno=os.dup(connection.fileno()))


def broken_constraint(error: IntegrityError) -> str:
    """The name of the constraint that a statement ran into, or ""."""
    if isinstance(error.orig, psycopg.Error):
        return error.orig.diag.constraint_name or ""
    return ""


def _is_passing(error: DBAPIError | PoolTimeoutError | psycopg.Error) -> bool:
    if isinstance(error, PoolTimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = _sqlstate(error)
    if not state:  # The connection was refused, or broke before an answer.
        return isinstance(_of_driver(error), psycopg.OperationalError)
    return state.startswith(_WORTH_RETRYING)


def _sqlstate(error: DBAPIError | PoolTimeoutError | psycopg.Error) -> str:
    cause = _of_driver(error)
    return (cause.sqlstate or "") if isinstance(cause, psycopg.Error) else ""


def _of_driver(error: Exception) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error
