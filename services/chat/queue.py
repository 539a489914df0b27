"""The queue of background tasks: procrastinate's, in chat's own PostgreSQL."""

from typing import Any
from uuid import UUID

import procrastinate
from sqlalchemy.ext.asyncio import AsyncConnection

NAME = "tasks"
TASK = "khesht.chat.run"


def opened(url: str, *, connections: int) -> procrastinate.App:
    """The queue over connections of its own, for workers; to be opened by `open_async`."""
    connector = procrastinate.PsycopgConnector(
        conninfo=url,
        min_size=1,
        max_size=connections,
        timeout=5,
        kwargs={
            "connect_timeout": 2,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 2,
        },
    )
    return procrastinate.App(connector=connector)


# Never opened: it only puts jobs on the connections of others' transactions.
_deferring = procrastinate.App(connector=procrastinate.PsycopgConnector())


async def put(connection: AsyncConnection, task_id: UUID, turn: int) -> None:
    """Puts a task on the queue, when the transaction of `connection` is committed.

    Tasks of lower turns are taken off first, and of one turn as they came.
    """
    driver: Any = (await connection.get_raw_connection()).driver_connection
    deferring = _deferring.configure_task(TASK, queue=NAME, priority=-turn, connection=driver)
    await deferring.defer_async(task_id=str(task_id))
