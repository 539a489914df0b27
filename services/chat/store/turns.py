"""In which order tasks of all accounts are run: accounts take turns."""

from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chat.domain.generation import Status
from services.chat.tables import generations

_row = generations.c
_open = text("turn IS NOT NULL AND status IN ('pending', 'running')")


async def waiting(connection: AsyncConnection, user_id: UUID, but: UUID) -> int:
    """How many tasks of an account wait for a worker, without the one of id `but`."""
    counted = select(func.count()).where(
        _row.user_id == user_id, _row.status == Status.PENDING, _row.id != but, _open
    )
    return (await connection.execute(counted)).scalar_one()


async def next_turn(connection: AsyncConnection, user_id: UUID) -> int:
    """The turn of an account's next task: lower ones are run first, equal ones as they came.

    It is one more than that of the account's last task which waits or runs, and not less
    than the turn that runs now (start-time fair queueing: P. Goyal, H. Vin, H. Cheng,
    IEEE/ACM Transactions on Networking 5(5), 1997). So who has many tasks waiting is
    passed by the first of who has none, and who was idle has saved nothing up.
    """
    last = select(func.max(_row.turn) + 1).where(_row.user_id == user_id, _open)
    runs = select(func.max(_row.turn)).where(_row.status == Status.RUNNING, _open)
    waits = select(func.min(_row.turn)).where(_row.status == Status.PENDING, _open)
    now = func.coalesce(runs.scalar_subquery(), waits.scalar_subquery(), 0)
    # `greatest` passes over what is NULL.
    turn = select(func.greatest(last.scalar_subquery(), now))
    return int((await connection.execute(turn)).scalar_one())
