"""Usage records in PostgreSQL, as callers read them. `ledger` adds them; nobody changes them."""

from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import ColumnElement, Text, cast, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.usage.domain.records import KINDS, Record, Totals, Whose
from services.usage.tables import usage_records

# One for each field of a record, in its order.
_COLUMNS = tuple(usage_records.c[field.name] for field in fields(Record))

_SUMS = (
    func.count(),
    func.coalesce(func.sum(usage_records.c.prompt_tokens), 0),
    func.coalesce(func.sum(usage_records.c.completion_tokens), 0),
    func.coalesce(func.sum(usage_records.c.cost), 0),
    *(func.coalesce(func.sum(usage_records.c[f"{kind}_tokens"]), 0) for kind in KINDS),
)
_NAMES: dict[str, ColumnElement[str]] = {
    "day": func.to_char(usage_records.c.created_at.op("AT TIME ZONE")("UTC"), "YYYY-MM-DD"),
    "model": usage_records.c.model,
    "key": func.coalesce(cast(usage_records.c.key_id, Text), ""),
}

Place = tuple[datetime, UUID]


async def list_records(
    connection: AsyncConnection,
    whose: Whose,
    *,
    after: Place | None,
    limit: int,
    start: datetime | None = None,
) -> list[Record]:
    """Up to `limit` records past `after`, not before `start`, newest first, by `usage_newest_of_user` or `_key`."""
    query = (
        select(*_COLUMNS)
        .where(_of(whose))
        .order_by(usage_records.c.created_at.desc(), usage_records.c.generation_id.desc())
        .limit(limit)
    )
    if start is not None:
        query = query.where(usage_records.c.created_at >= start)
    if after is not None:
        query = query.where(
            tuple_(usage_records.c.created_at, usage_records.c.generation_id) < after
        )
    return [Record(*row) for row in await connection.execute(query)]


async def sum_records(
    connection: AsyncConnection, whose: Whose, start: datetime, end: datetime
) -> Totals:
    """The totals from `start` to `end`, both included, by the same indexes."""
    query = select(*_SUMS).where(_of(whose)).where(usage_records.c.created_at.between(start, end))
    return _totals(*(await connection.execute(query)).one())


async def sum_groups(
    connection: AsyncConnection, whose: Whose, start: datetime, end: datetime, group_by: str
) -> dict[str, Totals]:
    """The same by the name of each day, model or key, in the order of the names."""
    name = _NAMES[group_by].label("name")
    query = (
        select(name, *_SUMS)
        .where(_of(whose))
        .where(usage_records.c.created_at.between(start, end))
        .group_by(name)
        .order_by(name)
    )
    return {row[0]: _totals(*row[1:]) for row in await connection.execute(query)}


def _totals(
    requests: int, prompt: Decimal, completion: Decimal, cost: Decimal, *kinds: Decimal
) -> Totals:
    return Totals(requests, int(prompt), int(completion), int(cost), tuple(map(int, kinds)))


def _of(whose: Whose) -> ColumnElement[bool]:
    mine = usage_records.c.user_id == whose.user_id
    return mine if whose.key_id is None else mine & (usage_records.c.key_id == whose.key_id)
