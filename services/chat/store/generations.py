"""Generations in PostgreSQL: opened, journalled, closed, read by their owners, told to usage."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Integer,
    TableValuedAlias,
    Uuid,
    any_,
    bindparam,
    case,
    column,
    delete,
    func,
    literal_column,
    null,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.bulk import BulkInsert, BulkUpdate, Connection
from mesh.lane import Lane
from services.chat.domain.generation import Status
from services.chat.domain.records import Exchange
from services.chat.domain.rows import Closing, Consumption, Failure, Opening, Row, Segment
from services.chat.domain.tokens import Basis
from services.chat.store import chats
from services.chat.tables import generations, journal

# Where it is heard that generations are to be ended.
CANCELS = "khesht_chat_cancels"

_ROW = tuple(generations.c[field.name] for field in fields(Row))
# Of many at once, without their texts, which may be large.
_LISTED = tuple(null() if each is generations.c.tail else each for each in _ROW)
# The release before counted a prompt's characters instead, and may still run beside this one.
PROMPT_ESTIMATE = func.coalesce(
    func.nullif(generations.c.prompt_estimate, 0), (generations.c.prompt_size + 3) // 4
).label("prompt_estimate")
_CONSUMPTION = tuple(generations.c[field.name] for field in fields(Consumption))

_OPEN = BulkInsert(generations, [field.name for field in fields(Opening)])


def _counts(given: TableValuedAlias) -> ColumnElement[bool]:
    """Whether segments are of what runs: not of one that was ended, or begun anew, meanwhile."""
    row = generations.c
    mine = (row.id == given.c.generation_id) & (row.base == given.c.base)
    return select(row.id).where(mine, row.status == text("'running'")).exists()


_WRITE = BulkInsert(journal, [field.name for field in fields(Segment)], _counts)
# Whoever ends it first has ended it; and who was relieved of it has no say.
_CLOSE = BulkUpdate(
    generations,
    [field.name for field in fields(Closing) if field.name not in ("id", "runner_id")],
    literal_column("generations.status IN ('pending', 'running')"),
    matching=("runner_id",),
    cleared=("question", "prompt"),
)

# One array, and not a parameter for each: the same statement for any number.
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_READ = select(*_ROW).where(generations.c.id == any_(_IDS))
_PRESENT = select(generations.c.id).where(generations.c.id == any_(_IDS))
_RUNNING = select(generations.c.id, generations.c.base).where(
    generations.c.id == any_(_IDS), generations.c.status == text("'running'")
)
_DROP = delete(journal).where(journal.c.generation_id == any_(_IDS))
_ERASE = update(generations).where(generations.c.id == any_(_IDS)).values(tail=None, dedup_key=None)
_TOLD = update(generations).where(generations.c.id == any_(_IDS)).values(owed=False)

_places = (
    func.unnest(_IDS, bindparam("afters", type_=ARRAY(Integer)))
    .table_valued(column("id", Uuid), column("after", Integer), name="places")
    .render_derived()
)
_PAST = (
    select(*journal.c)
    .join(_places, (journal.c.generation_id == _places.c.id) & (journal.c.seq > _places.c.after))
    .order_by(journal.c.generation_id, journal.c.seq)
    .limit(bindparam("most", type_=Integer))
)
_NEXT = (
    select(*journal.c)
    .where(journal.c.generation_id == bindparam("id"), journal.c.base == bindparam("base"))
    .where(journal.c.seq > bindparam("after"))
    .order_by(journal.c.seq)
    .limit(bindparam("most", type_=Integer))
)

# Written out, so that it is seen to be what indexes are of.
_WAITS = text("status = 'pending'")

# How long a request can be repeated by its name.
_REPEATABLE = timedelta(hours=24)

Place = tuple[datetime, UUID]


async def open_all(connection: Connection, openings: Sequence[Opening]) -> set[UUID]:
    """The ids of those of `openings` that are there now. Safe to repeat: ids decide.

    One is left out when its caller has used its `dedup_key` before.
    """
    ids = [opening.id for opening in openings]
    if await _OPEN.run(connection, openings) == len(ids):
        return set(ids)
    return {row[0] for row in await connection.execute(_PRESENT, {"ids": ids})}


async def write(connection: Connection, segments: Sequence[Segment]) -> set[UUID]:
    """Adds segments, at least one, of what still runs. Safe to repeat.

    Returns the generations that do not run any more, or were begun anew elsewhere: nothing of
    theirs was added.
    """
    if await _WRITE.run(connection, segments) == len(segments):
        return set()
    bases = {segment.generation_id: segment.base for segment in segments}
    rows = await connection.execute(_RUNNING, {"ids": list(bases)})
    return bases.keys() - {row[0] for row in rows if row[1] == bases[row[0]]}


async def close_all(
    connection: Connection,
    closings: Sequence[Closing],
    exchanges: Mapping[UUID, Exchange],
) -> set[UUID]:
    """The ids of those of `closings` that ended by this, and not before.

    Of those, what is to be kept in chats is stored, and nothing of those whose chat
    was deleted meanwhile.
    """
    ended: set[UUID] = await _CLOSE.run(connection, closings)
    kept = {i: exchange for i, exchange in exchanges.items() if i in ended}
    if kept:
        if isinstance(connection, Lane):
            raise TypeError("messages and the ending belong in one transaction")
        there = await chats.keep(connection, list(kept.values()))
        await erase(connection, [i for i, each in kept.items() if each.chat.id not in there])
    return ended


async def erase(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Drops the texts of generations that have ended, and their names; what they used stays."""
    await connection.execute(_ERASE, {"ids": list(ids)})
    await connection.execute(_DROP, {"ids": list(ids)})


async def ended_of_chat(
    connection: AsyncConnection, user_id: UUID, chat_id: UUID
) -> Sequence[UUID]:
    """The ids of those of a user's chat that have ended."""
    row = generations.c
    query = select(row.id).where(
        row.user_id == user_id, row.chat_id == chat_id, row.ended_at.is_not(None)
    )
    return (await connection.execute(query)).scalars().all()


async def read(connection: AsyncConnection, ids: Sequence[UUID]) -> list[Row]:
    """Those of `ids` that are there, whoever's they are."""
    return [Row(*row) for row in await connection.execute(_READ, {"ids": list(ids)})]


async def get(connection: AsyncConnection, user_id: UUID, generation_id: UUID) -> Row | None:
    """The generation, or None when the user has none of this id."""
    query = _READ.where(generations.c.user_id == user_id)
    row = (await connection.execute(query, {"ids": [generation_id]})).one_or_none()
    return Row(*row) if row else None


async def of_request(connection: AsyncConnection, caller_id: UUID, dedup_key: str) -> Row | None:
    """What the caller's request of this name has become."""
    query = select(*_ROW).where(
        generations.c.caller_id == caller_id, generations.c.dedup_key == dedup_key
    )
    row = (await connection.execute(query)).one_or_none()
    return Row(*row) if row else None


async def list_newest(
    connection: AsyncConnection,
    user_id: UUID,
    wanted: Mapping[str, Any],
    *,
    after: Place | None,
    limit: int,
) -> list[Row]:
    """Up to `limit` of a user's past `after`, newest first; `wanted` maps columns to values.

    They come without `tail`.
    """
    query = (
        select(*_LISTED)
        .where(generations.c.user_id == user_id)
        .where(*(generations.c[name] == value for name, value in wanted.items()))
        .order_by(generations.c.created_at.desc(), generations.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(generations.c.created_at, generations.c.id) < tuple_(*after))
    return [Row(*row) for row in await connection.execute(query)]


async def segments_past(
    connection: AsyncConnection, places: Mapping[UUID, int], *, most: int | None = None
) -> list[Segment]:
    """The segments past a place of each generation, in order; the first may begin before it.

    With `most` no more than so many; those of the first generations come first.
    """
    arrays = {"ids": list(places), "afters": list(places.values()), "most": most}
    return [Segment(*row) for row in await connection.execute(_PAST, arrays)]


async def next_segments(
    connection: AsyncConnection, generation_id: UUID, base: int, after: int, *, most: int
) -> list[Segment]:
    """Up to `most` segments past a place of what was written past `base`, in order."""
    wanted = {"id": generation_id, "base": base, "after": after, "most": most}
    return [Segment(*row) for row in await connection.execute(_NEXT, wanted)]


async def written(connection: AsyncConnection, generation_id: UUID) -> tuple[int, int]:
    """The place of the last part that was written down, and the tokens of all, about."""
    sums = select(
        func.coalesce(func.max(journal.c.seq), 0), func.coalesce(func.sum(journal.c.pieces), 0)
    ).where(journal.c.generation_id == generation_id)
    seq, tokens = (await connection.execute(sums)).one()
    return seq, int(tokens)


async def cancel_waiting(
    connection: AsyncConnection, generation_id: UUID, reason: str, ended_at: datetime
) -> None:
    """Ends a task that waits for a worker; one that does not wait stays as it is."""
    await _cancel(connection, generations.c.id == generation_id, reason, None, ended_at)


async def waiting_callers(connection: AsyncConnection) -> set[tuple[UUID, UUID | None]]:
    """The accounts, and keys of theirs, of which tasks wait for a worker."""
    row = generations.c
    query = select(row.user_id, row.key_id).distinct().where(_WAITS, row.turn.is_not(None))
    return {(user_id, key_id) for user_id, key_id in await connection.execute(query)}


async def cancel_waiting_of(
    connection: AsyncConnection,
    user_id: UUID,
    key_id: UUID | None,
    failure: Failure,
    ended_at: datetime,
) -> None:
    """Ends the tasks that an account asked for by a key, or by none, and that wait."""
    row = generations.c
    of_caller = (row.user_id == user_id) & row.turn.is_not(None)
    of_caller &= row.key_id.is_(None) if key_id is None else row.key_id == key_id
    error = msgspec.json.encode(failure).decode()
    await _cancel(connection, of_caller, failure.reason, error, ended_at)


async def _cancel(
    connection: AsyncConnection,
    which: ColumnElement[bool],
    reason: str,
    error: str | None,
    ended_at: datetime,
) -> None:
    """Ends those tasks of `which` that wait.

    What was written of it before it waited again is paid for, as `estimated` has it.
    """
    row = generations.c
    pieces = (
        select(func.coalesce(func.sum(journal.c.pieces), 0))
        .where(journal.c.generation_id == row.id, journal.c.base == row.base)
        .scalar_subquery()
    )
    prompt = row.given_up_prompt + case((pieces > 0, PROMPT_ESTIMATE), else_=0)
    completion = row.given_up_completion + pieces
    await connection.execute(
        update(generations)
        .where(which, _WAITS)
        .values(
            status=Status.CANCELLED,
            reason=reason,
            error=error,
            finish_reason="cancelled",
            answered_by=row.model,
            prompt_tokens=prompt,
            completion_tokens=completion,
            basis=case((completion > 0, Basis.CRASH)),
            owed=completion > 0,
            latency_ms=0,
            ended_at=ended_at,
            question=None,
            prompt=None,
        )
    )


async def ask_cancel(connection: AsyncConnection, generation_id: UUID) -> None:
    """Marks a running generation to be ended, and tells the process that runs it."""
    asked = (
        update(generations)
        .where(generations.c.id == generation_id, generations.c.status == Status.RUNNING)
        .values(cancel_asked=True)
    )
    if (await connection.execute(asked)).rowcount:
        await connection.execute(select(func.pg_notify(CANCELS, str(generation_id))))


async def forget(connection: AsyncConnection, before: datetime, *, limit: int) -> bool:
    """Lets requests of 24 hours ago be made anew, and drops what ended before `before`.

    Up to `limit` of both, as a statement takes no longer than it may; returns whether
    there may be more.
    """
    row = generations.c
    old = row.created_at < func.now() - _REPEATABLE
    named = select(row.id).where(row.dedup_key.is_not(None), old).limit(limit)
    unnamed = update(generations).where(row.id.in_(named)).values(dedup_key=None)
    ended = select(row.id).where(row.ended_at < before, ~row.owed).order_by(row.ended_at)
    dropped = delete(generations).where(row.id.in_(ended.limit(limit))).returning(row.id)
    forgotten = (await connection.execute(unnamed)).rowcount
    ids = list((await connection.execute(dropped)).scalars())
    await connection.execute(_DROP, {"ids": ids})
    return max(forgotten, len(ids)) == limit


async def untold(
    connection: AsyncConnection, *, after: Place | None, limit: int
) -> list[Consumption]:
    """Up to `limit` past `after` that usage has not been told, oldest first."""
    place = tuple_(generations.c.created_at, generations.c.id)
    query = select(*_CONSUMPTION).where(text("owed")).order_by(*place.clauses).limit(limit)
    if after is not None:
        query = query.where(place > after)
    return [Consumption(*row) for row in await connection.execute(query)]


async def told(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Notes what usage has been told."""
    await connection.execute(_TOLD, {"ids": list(ids)})
