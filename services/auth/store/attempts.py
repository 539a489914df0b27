"""Counters of login attempts in PostgreSQL: the same for all replicas, and after a restart."""

from datetime import timedelta

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.domain.attempts import Counter
from services.auth.tables import attempts

# Each attempt adds two rows at most, so that this many keep the table small.
_SWEPT_AT_ONCE = 10


async def count(connection: AsyncConnection, counter: Counter) -> timedelta | None:
    """Counts an attempt; if it is one too many, the time until the window ends.

    The row is locked from here on: attempts at once are counted one by one. A
    window begins with its first attempt.
    """
    query = insert(attempts).values(key=counter.key, count=1, ends_at=func.now() + counter.window)
    over = attempts.c.ends_at <= func.now()
    query = query.on_conflict_do_update(
        index_elements=[attempts.c.key],
        set_={
            "count": case((over, 1), else_=attempts.c.count + 1),
            "ends_at": case((over, query.excluded.ends_at), else_=attempts.c.ends_at),
        },
    )
    left = attempts.c.ends_at - func.now()
    row = (await connection.execute(query.returning(attempts.c.count, left))).one()
    counted: int = row[0]
    wait: timedelta = row[1]
    return wait if counted > counter.most else None


async def forget(connection: AsyncConnection, counter: Counter) -> None:
    """Starts `counter` anew."""
    await connection.execute(delete(attempts).where(attempts.c.key == counter.key))


async def take_back(connection: AsyncConnection, counter: Counter) -> None:
    """Takes one attempt back."""
    query = update(attempts).where(attempts.c.key == counter.key, attempts.c.count > 0)
    await connection.execute(query.values(count=attempts.c.count - 1))


async def sweep(connection: AsyncConnection) -> None:
    """Deletes some counters whose window is over. Waits for nobody."""
    old = (
        select(attempts.c.key)
        .where(attempts.c.ends_at <= func.now())
        .limit(_SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(attempts).where(attempts.c.key.in_(old)))
