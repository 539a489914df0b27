"""The processes that run generations, and what those that died have left."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.chat.domain.generation import Status
from services.chat.domain.rows import Opening
from services.chat.domain.tokens import Basis, Tokens, estimated
from services.chat.store.generations import PROMPT_ESTIMATE
from services.chat.tables import generations, journal, runners

# A process that was not seen for this long is dead.
SILENT = timedelta(seconds=20)
_FORGOTTEN = timedelta(hours=1)

_OPENING = tuple(
    PROMPT_ESTIMATE if field.name == "prompt_estimate" else generations.c[field.name]
    for field in fields(Opening)
)

_alive = (
    select(runners.c.id)
    .where(runners.c.id == generations.c.runner_id, runners.c.seen_at > func.now() - SILENT)
    .exists()
)


class StillRuns(Exception):
    """Another live process runs the task."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task that a process may run: past which place, after how many tries, and what they took.

    `cancelled` says whether somebody wanted it ended before.
    """

    opening: Opening
    base: int
    tries: int
    given_up: Tokens
    cancelled: bool


async def seen(connection: AsyncConnection, runner_id: UUID) -> dict[UUID, bool]:
    """Notes that the process is alive; returns what it runs, and whether it is to end it."""
    beat = upsert(runners).values(id=runner_id, seen_at=func.now())
    await connection.execute(
        beat.on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()})
    )
    mine = select(generations.c.id, generations.c.cancel_asked).where(
        generations.c.runner_id == runner_id, generations.c.status == Status.RUNNING
    )
    return {row[0]: row[1] for row in await connection.execute(mine)}


async def gone(connection: AsyncConnection, runner_id: UUID) -> None:
    """Notes that the process has ended, and forgets those that died long ago."""
    dead = (runners.c.id == runner_id) | (runners.c.seen_at < func.now() - _FORGOTTEN)
    await connection.execute(delete(runners).where(dead))


async def orphans(
    connection: AsyncConnection, left: Collection[UUID], *, limit: int
) -> Sequence[UUID]:
    """Up to `limit` generations whose process is dead, and those of `left` that still run.

    Tasks are not among them: a worker takes those over.
    """
    query = select(generations.c.id).where(_is_orphan(left)).order_by(generations.c.id).limit(limit)
    return (await connection.execute(query)).scalars().all()


async def lock_orphan(
    connection: AsyncConnection, left: Collection[UUID], generation_id: UUID
) -> Opening | None:
    """The orphan, locked until the transaction ends; None when it is none, or others have it."""
    query = (
        select(*_OPENING)
        .where(generations.c.id == generation_id, _is_orphan(left))
        .with_for_update(skip_locked=True, of=generations)
    )
    row = (await connection.execute(query)).one_or_none()
    return Opening(*row) if row else None


def _is_orphan(left: Collection[UUID]) -> ColumnElement[bool]:
    row = generations.c
    runs = (row.status == Status.RUNNING) & row.prompt.is_(None)
    return runs & (~_alive | row.id.in_(left))


async def claim(connection: AsyncConnection, task_id: UUID, runner_id: UUID) -> Claim | None:
    """Gives the task to a process.

    None when it has ended. What a dead process wrote of it is given up, and paid for.
    Raises StillRuns when another live process has it.
    """
    row = generations.c
    locked = await connection.execute(
        select(
            *_OPENING,
            *(row.base, row.tries, row.given_up_prompt, row.given_up_completion),
            *(row.cancel_asked, _alive),
        )
        .where(row.id == task_id)
        .with_for_update(of=generations)
    )
    found = locked.one_or_none()
    if found is None:
        return None
    opening = Opening(*found[:-6])
    base, tries, prompt, completion, cancelled, alive = found[-6:]
    if Status(opening.status).is_over:
        return None
    if alive and opening.runner_id != runner_id:
        raise StillRuns
    counted = func.sum(journal.c.pieces).filter(journal.c.base == base)
    past = select(func.max(journal.c.seq), func.coalesce(counted, 0)).where(
        journal.c.generation_id == task_id, journal.c.seq > base
    )
    last, pieces = (await connection.execute(past)).one()
    if last is not None:
        more = estimated(opening.prompt_estimate, int(pieces), Basis.CRASH)
        base, prompt, completion = last + 1, prompt + more.prompt, completion + more.completion
    elif opening.status == Status.RUNNING:
        base += 1  # What a process may still write that only stood still does not count.
    if opening.status == Status.RUNNING and not alive:
        tries += 1
    taken = {"status": Status.RUNNING, "runner_id": runner_id, "base": base, "tries": tries}
    given_up = {"given_up_prompt": prompt, "given_up_completion": completion}
    await connection.execute(update(generations).where(row.id == task_id).values(taken | given_up))
    return Claim(opening, base, tries, Tokens(prompt, completion, Basis.CRASH), cancelled)


async def put_back(
    connection: AsyncConnection, task_id: UUID, runner_id: UUID, *, tried: bool
) -> None:
    """Lets the task wait for a worker again; `tried` says whether that counts as a try."""
    await connection.execute(
        update(generations)
        .where(generations.c.id == task_id, generations.c.runner_id == runner_id)
        .where(generations.c.status == Status.RUNNING)
        .values(status=Status.PENDING, runner_id=None, tries=generations.c.tries + int(tried))
    )
