"""Usage records in PostgreSQL. They are added and read, and never changed."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Executable, bindparam, column, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.usage.domain import Record, Totals, Whose
from services.usage.tables import usage_records

# One for each field of a record, in its order.
_COLUMNS = tuple(usage_records.c[field.name] for field in fields(Record))
_NAMES = [each.name for each in _COLUMNS]
_values = attrgetter(*_NAMES)


def _add() -> Executable:
    """Adds rows given as one array for each column: the same statement for any number."""
    given = (
        func.unnest(*(bindparam(each.name, type_=ARRAY(each.type)) for each in _COLUMNS))
        .table_valued(*(column(each.name, each.type) for each in _COLUMNS), name="given")
        .render_derived()
    )
    return (
        insert(usage_records)
        .from_select(_NAMES, select(*given.c))
        .on_conflict_do_nothing(index_elements=["generation_id"])
        .execution_options(preserve_rowcount=True)
    )


_ADD = _add()

Place = tuple[datetime, UUID]


async def add_records(connection: AsyncConnection, records: Sequence[Record]) -> int:
    """How many of `records`, at least one, were new; those already there stay as they are.

    They go in the order of their ids, so that batches that share some wait for
    each other and never in a circle.
    """
    rows = map(_values, sorted(records, key=attrgetter("generation_id")))
    arrays = dict(zip(_NAMES, map(list, zip(*rows, strict=True)), strict=True))
    return (await connection.execute(_ADD, arrays)).rowcount


async def list_records(
    connection: AsyncConnection, whose: Whose, *, after: Place | None, limit: int
) -> list[Record]:
    """Up to `limit` records past `after`, newest first, by `usage_newest_of_user` or `_key`."""
    query = (
        select(*_COLUMNS)
        .where(_of(whose))
        .order_by(usage_records.c.created_at.desc(), usage_records.c.generation_id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(
            tuple_(usage_records.c.created_at, usage_records.c.generation_id) < after
        )
    return [Record(*row) for row in await connection.execute(query)]


async def sum_records(
    connection: AsyncConnection, whose: Whose, start: datetime, end: datetime
) -> Totals:
    """The totals from `start` to `end`, both included, by the same indexes."""
    query = (
        select(
            func.count(),
            func.coalesce(func.sum(usage_records.c.prompt_tokens), 0),
            func.coalesce(func.sum(usage_records.c.completion_tokens), 0),
            func.coalesce(func.sum(usage_records.c.cost), 0),
        )
        .where(_of(whose))
        .where(usage_records.c.created_at.between(start, end))
    )
    requests, prompt, completion, cost = (await connection.execute(query)).one()
    return Totals(requests, int(prompt), int(completion), int(cost))


def _of(whose: Whose) -> ColumnElement[bool]:
    mine = usage_records.c.user_id == whose.user_id
    return mine if whose.key_id is None else mine & (usage_records.c.key_id == whose.key_id)
