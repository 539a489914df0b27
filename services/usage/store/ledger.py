"""What is spent, in PostgreSQL: records and adjustments, and the balances they add up to.

Whatever is locked, here and in `holds`, is locked in one order, so that nobody waits
in a circle: records and then holds by generation, then balances by scope, id, period.
"""

from collections.abc import Collection, Sequence
from dataclasses import fields
from operator import attrgetter
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.usage.domain.ledger import Adjustment, Balance, Budget
from services.usage.domain.records import KindPrices, Record
from services.usage.tables import balances, budgets, usage_adjustments

_RECORD = [field.name for field in fields(Record)]
_VALUES = attrgetter(*_RECORD)

# One statement, so one transaction and one round trip. What it releases travels as a
# positive number in the column `reserved`: the row proposed must keep the table's
# check, and a balance that is not there yet has nothing to release.
_SETTLE = text("""
WITH added AS (
  INSERT INTO usage_records (generation_id, request_id, user_id, key_id, model, provider,
    prompt_tokens, completion_tokens, prompt_price, completion_price, cached_read_tokens,
    cached_write_tokens, reasoning_tokens, audio_prompt_tokens, audio_completion_tokens,
    kind_prices, cost, status, basis, latency_ms, created_at)
  SELECT generation_id, request_id, user_id, key_id, model, provider, prompt_tokens,
    completion_tokens, prompt_price, completion_price, cached_read_tokens, cached_write_tokens,
    reasoning_tokens, audio_prompt_tokens, audio_completion_tokens,
    CAST(kind_prices AS bigint[]), cost, status, basis, latency_ms, created_at
  FROM unnest(
    CAST(:generation_id AS uuid[]), CAST(:request_id AS text[]), CAST(:user_id AS uuid[]),
    CAST(:key_id AS uuid[]), CAST(:model AS text[]), CAST(:provider AS text[]),
    CAST(:prompt_tokens AS int[]), CAST(:completion_tokens AS int[]),
    CAST(:prompt_price AS bigint[]), CAST(:completion_price AS bigint[]),
    CAST(:cached_read_tokens AS int[]), CAST(:cached_write_tokens AS int[]),
    CAST(:reasoning_tokens AS int[]), CAST(:audio_prompt_tokens AS int[]),
    CAST(:audio_completion_tokens AS int[]), CAST(:kind_prices AS text[]),
    CAST(:cost AS bigint[]), CAST(:status AS text[]), CAST(:basis AS text[]),
    CAST(:latency_ms AS int[]), CAST(:created_at AS timestamptz[])
  ) AS given (generation_id, request_id, user_id, key_id, model, provider, prompt_tokens,
    completion_tokens, prompt_price, completion_price, cached_read_tokens, cached_write_tokens,
    reasoning_tokens, audio_prompt_tokens, audio_completion_tokens, kind_prices, cost, status,
    basis, latency_ms, created_at)
  ORDER BY generation_id
  ON CONFLICT DO NOTHING
  RETURNING user_id, key_id, cost, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM') AS month
), picked AS (
  SELECT generation_id FROM holds
  WHERE generation_id = ANY(CAST(:ended AS uuid[]))
  ORDER BY generation_id FOR UPDATE
), closed AS (
  DELETE FROM holds USING picked WHERE holds.generation_id = picked.generation_id
  RETURNING holds.user_id, holds.key_id, holds.amount, holds.month
), changes AS (
  SELECT user_id, key_id, month, cost, 0 AS released FROM added
  UNION ALL
  SELECT user_id, key_id, month, 0, amount FROM closed
), booked AS (
  INSERT INTO balances AS balance (scope, scope_id, period, spent, reserved)
  SELECT place.scope, place.scope_id, place.period, sum(cost), sum(released)
  FROM changes CROSS JOIN LATERAL (
    VALUES ('key', key_id, month), ('key', key_id, 'total'),
      ('user', user_id, month), ('user', user_id, 'total')
  ) AS place (scope, scope_id, period)
  WHERE place.scope_id IS NOT NULL
  GROUP BY place.scope, place.scope_id, place.period
  ORDER BY place.scope, place.scope_id, place.period
  ON CONFLICT (scope, scope_id, period) DO UPDATE SET
    spent = balance.spent + excluded.spent,
    reserved = balance.reserved - excluded.reserved
)
SELECT (SELECT count(*) FROM added), (SELECT count(*) FROM closed)
""")

_ADJUST = text("""
WITH added AS (
  INSERT INTO usage_adjustments (generation_id, seq, cost_delta, note)
  SELECT generation_id, :seq, :cost_delta, :note
  FROM usage_records WHERE generation_id = :generation_id
  ON CONFLICT DO NOTHING
  RETURNING generation_id, cost_delta
), booked AS (
  INSERT INTO balances AS balance (scope, scope_id, period, spent, reserved)
  SELECT place.scope, place.scope_id, place.period, cost_delta, 0
  FROM added JOIN usage_records USING (generation_id) CROSS JOIN LATERAL (
    VALUES ('key', key_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM')),
      ('key', key_id, 'total'),
      ('user', user_id, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM')),
      ('user', user_id, 'total')
  ) AS place (scope, scope_id, period)
  WHERE place.scope_id IS NOT NULL
  ORDER BY place.scope, place.scope_id, place.period
  ON CONFLICT (scope, scope_id, period) DO UPDATE SET spent = balance.spent + excluded.spent
)
SELECT count(*) FROM added
""")


_BUDGETS = text("""
SELECT user_id, monthly, total, soft FROM budgets
WHERE user_id = ANY(CAST(:user_ids AS uuid[]))
  AND coalesce(monthly, total, soft) IS NOT NULL
""")


async def settle(
    connection: AsyncConnection, records: Sequence[Record], ended: Collection[UUID]
) -> tuple[int, int]:
    """How many of `records` were new, and how many of the generations `ended` had a hold.

    New records are charged, and holds closed; what is there already stays as it is.
    """
    columns = zip(*map(_VALUES, records), strict=True) if records else [()] * len(_RECORD)
    values = dict(zip(_RECORD, map(list, columns), strict=True))
    # An array of arrays would be taken for one of all their elements.
    values["kind_prices"] = [prices and _array(prices) for prices in values["kind_prices"]]
    row = (await connection.execute(_SETTLE, values | {"ended": list(ended)})).one()
    return row[0], row[1]


async def adjust(connection: AsyncConnection, adjustment: Adjustment) -> bool:
    """Whether it was booked: it is new, and its generation has a record."""
    told = {
        "generation_id": adjustment.generation_id,
        "seq": adjustment.seq,
        "cost_delta": adjustment.cost_delta,
        "note": adjustment.note,
    }
    return bool((await connection.execute(_ADJUST, told)).scalar_one())


async def get_adjustment(
    connection: AsyncConnection, generation_id: UUID, seq: int
) -> Adjustment | None:
    """The adjustment, or None."""
    table = usage_adjustments.c
    query = select(table.generation_id, table.seq, table.cost_delta, table.note).where(
        table.generation_id == generation_id, table.seq == seq
    )
    row = (await connection.execute(query)).one_or_none()
    return Adjustment(*row) if row else None


async def get_budgets(
    connection: AsyncConnection, user_ids: Collection[UUID]
) -> dict[UUID, Budget]:
    """The budgets of those accounts that have one."""
    rows = await connection.execute(_BUDGETS, {"user_ids": list(user_ids)})
    return {row[0]: Budget(*row[1:]) for row in rows}


async def replace_budget(connection: AsyncConnection, user_id: UUID, budget: Budget) -> None:
    """Makes `budget` the account's."""
    values = {"monthly": budget.monthly, "total": budget.total, "soft": budget.soft}
    query = insert(budgets).values(user_id=user_id, **values)
    await connection.execute(query.on_conflict_do_update(index_elements=["user_id"], set_=values))


async def get_balance(connection: AsyncConnection, user_id: UUID, period: str) -> Balance:
    """What an account spent and holds in a month, or in all time."""
    query = select(balances.c.spent, balances.c.reserved).where(
        balances.c.scope == "user", balances.c.scope_id == user_id, balances.c.period == period
    )
    row = (await connection.execute(query)).one_or_none()
    return Balance(*row) if row else Balance()


def _array(prices: KindPrices) -> str:
    """As PostgreSQL writes an array."""
    return "{" + ",".join("NULL" if price is None else str(price) for price in prices) + "}"
