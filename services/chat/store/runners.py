"""The processes that run generations, and what those that died have left."""

from dataclasses import fields
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chat.domain.generation import Basis, Status, Tokens, estimated
from services.chat.domain.rows import Opening
from services.chat.tables import generations, journal, runners

# A process that was not seen for this long is dead.
SILENT = timedelta(seconds=20)
_FORGOTTEN = timedelta(hours=1)

_OPENING = tuple(generations.c[field.name] for field in fields(Opening))

_alive = (
    select(runners.c.id)
    .where(runners.c.id == generations.c.runner_id, runners.c.seen_at > func.now() - SILENT)
    .exists()
)


class StillRuns(Exception):
    """A live process runs the task."""


async def seen(connection: AsyncConnection, runner_id: UUID) -> list[UUID]:
    """Notes that the process is alive; returns those of its generations that it is to end."""
    beat = upsert(runners).values(id=runner_id, seen_at=func.now())
    await connection.execute(
        beat.on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()})
    )
    asked = select(generations.c.id).where(
        generations.c.runner_id == runner_id,
        generations.c.status == Status.RUNNING,
        generations.c.cancel_asked,
    )
    return list((await connection.execute(asked)).scalars())


async def gone(connection: AsyncConnection, runner_id: UUID) -> None:
    """Notes that the process has ended, and forgets those that died long ago."""
    dead = (runners.c.id == runner_id) | (runners.c.seen_at < func.now() - _FORGOTTEN)
    await connection.execute(delete(runners).where(dead))


async def orphans(connection: AsyncConnection, *, limit: int) -> list[Opening]:
    """Up to `limit` generations whose process is dead, locked until the transaction ends.

    Tasks are not among them: a worker takes those over.
    """
    query = (
        select(*_OPENING)
        .where(generations.c.status == Status.RUNNING, generations.c.prompt.is_(None), ~_alive)
        .order_by(generations.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True, of=generations)
    )
    return [Opening(*row) for row in await connection.execute(query)]


async def claim(
    connection: AsyncConnection, task_id: UUID, runner_id: UUID
) -> tuple[Opening, int, Tokens] | None:
    """Gives the task to a process; returns it, its base, and the tokens given up in all.

    None when it has ended. What a dead process wrote of it is given up, and paid for.
    Raises StillRuns when a live process has it.
    """
    given_up = (generations.c.given_up_prompt, generations.c.given_up_completion)
    locked = await connection.execute(
        select(*_OPENING, generations.c.base, *given_up, _alive)
        .where(generations.c.id == task_id)
        .with_for_update(of=generations)
    )
    row = locked.one_or_none()
    if row is None:
        return None
    opening = Opening(*row[:-4])
    base, prompt, completion, alive = row[-4:]
    if Status(opening.status).is_over:
        return None
    if alive:
        raise StillRuns
    past = select(func.max(journal.c.seq), func.coalesce(func.sum(journal.c.pieces), 0)).where(
        journal.c.generation_id == task_id, journal.c.seq > base
    )
    last, pieces = (await connection.execute(past)).one()
    if last is not None:
        more = estimated(opening.prompt_size, int(pieces), Basis.CRASH)
        base, prompt, completion = last + 1, prompt + more.prompt, completion + more.completion
    await connection.execute(
        update(generations)
        .where(generations.c.id == task_id)
        .values(
            status=Status.RUNNING,
            runner_id=runner_id,
            base=base,
            given_up_prompt=prompt,
            given_up_completion=completion,
        )
    )
    return opening, base, Tokens(prompt, completion, Basis.CRASH)


async def put_back(connection: AsyncConnection, task_id: UUID, runner_id: UUID) -> None:
    """Lets the task wait for a worker again."""
    await connection.execute(
        update(generations)
        .where(generations.c.id == task_id, generations.c.runner_id == runner_id)
        .where(generations.c.status == Status.RUNNING)
        .values(status=Status.PENDING, runner_id=None)
    )
