"""Holds in PostgreSQL. They lock in the order that `ledger` has.

A balance is made outside of what takes a hold: made within, it would be locked out of
the order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.usage.domain.ledger import Balance, Hold, Place

# A hold that is not there yet begins with nothing. Settled generations get none.
_CLAIM = text("""
INSERT INTO holds AS hold (generation_id, user_id, key_id, month, amount, expires_at)
SELECT generation_id, user_id, key_id, month, 0, now() + interval '60 seconds'
FROM unnest(
  CAST(:generation_id AS uuid[]), CAST(:user_id AS uuid[]), CAST(:key_id AS uuid[]),
  CAST(:month AS text[])
) AS given (generation_id, user_id, key_id, month)
WHERE NOT EXISTS (
  SELECT FROM usage_records WHERE usage_records.generation_id = given.generation_id
)
ORDER BY generation_id
ON CONFLICT (generation_id) DO UPDATE SET expires_at = excluded.expires_at
RETURNING hold.generation_id, hold.user_id, hold.key_id, hold.month, hold.amount
""")

_OPEN = text("""
INSERT INTO balances (scope, scope_id, period, spent, reserved)
SELECT scope, scope_id, period, 0, 0
FROM unnest(CAST(:scope AS text[]), CAST(:scope_id AS uuid[]), CAST(:period AS text[]))
  AS given (scope, scope_id, period)
ORDER BY scope, scope_id, period
ON CONFLICT DO NOTHING
""")

# Who settled a claimed generation while it waited to be claimed is seen only now.
_LOCK = text("""
SELECT balances.scope, balances.scope_id, balances.period, balances.spent, balances.reserved,
  ARRAY(
    SELECT generation_id FROM usage_records
    WHERE generation_id = ANY(CAST(:claimed AS uuid[]))
  ) AS settled
FROM balances
JOIN unnest(CAST(:scope AS text[]), CAST(:scope_id AS uuid[]), CAST(:period AS text[]))
  AS given (scope, scope_id, period) USING (scope, scope_id, period)
ORDER BY balances.scope, balances.scope_id, balances.period
FOR UPDATE OF balances
""")

# All of these rows are locked by now. None is both raised and dropped.
_RESERVE = text("""
WITH raised AS (
  UPDATE holds SET amount = given.amount
  FROM unnest(CAST(:generation_id AS uuid[]), CAST(:amount AS bigint[]))
    AS given (generation_id, amount)
  WHERE holds.generation_id = given.generation_id
), dropped AS (
  DELETE FROM holds WHERE generation_id = ANY(CAST(:dropped AS uuid[])) AND amount = 0
)
UPDATE balances SET reserved = given.reserved
FROM unnest(CAST(:scope AS text[]), CAST(:scope_id AS uuid[]), CAST(:period AS text[]),
  CAST(:reserved AS bigint[])) AS given (scope, scope_id, period, reserved)
WHERE balances.scope = given.scope AND balances.scope_id = given.scope_id
  AND balances.period = given.period
""")

_READ = text("""
SELECT generation_id, user_id, key_id, month, amount FROM holds
WHERE generation_id = ANY(CAST(:generation_ids AS uuid[]))
""")

_BALANCES = text("""
SELECT balances.scope, balances.scope_id, balances.period, balances.spent, balances.reserved
FROM balances
JOIN unnest(CAST(:scope AS text[]), CAST(:scope_id AS uuid[]), CAST(:period AS text[]))
  AS given (scope, scope_id, period) USING (scope, scope_id, period)
""")

_RENEW = text("""
WITH picked AS (
  SELECT generation_id FROM holds
  WHERE generation_id = ANY(CAST(:generation_ids AS uuid[]))
  ORDER BY generation_id FOR UPDATE
)
UPDATE holds SET expires_at = now() + interval '60 seconds'
FROM picked WHERE holds.generation_id = picked.generation_id
RETURNING holds.generation_id
""")

_EXPIRED = text("""
SELECT generation_id FROM holds WHERE expires_at < now()
ORDER BY generation_id LIMIT :limit FOR UPDATE SKIP LOCKED
""")


async def claim(connection: AsyncConnection, wanted: Sequence[Hold]) -> dict[UUID, Hold]:
    """The holds there now for the generations of `wanted`, locked; none for those settled.

    A new one holds nothing yet.
    """
    unique = list({hold.generation_id: hold for hold in wanted}.values())
    told = {
        "generation_id": [hold.generation_id for hold in unique],
        "user_id": [hold.user_id for hold in unique],
        "key_id": [hold.key_id for hold in unique],
        "month": [hold.month for hold in unique],
    }
    return {row[0]: Hold(*row) for row in await connection.execute(_CLAIM, told)}


async def open_balances(connection: AsyncConnection, places: Iterable[Place]) -> None:
    """Makes those of `places` that are missing, with nothing in them."""
    await connection.execute(_OPEN, _columns(places))


async def lock(
    connection: AsyncConnection, places: Iterable[Place], claimed: Iterable[UUID]
) -> tuple[dict[Place, Balance], set[UUID]]:
    """The balances there are at `places`, locked; and those of `claimed` that were settled."""
    told = _columns(places) | {"claimed": list(claimed)}
    rows = (await connection.execute(_LOCK, told)).all()
    settled = set(rows[0].settled) if rows else set()
    return {Place(*row[:3]): Balance(row.spent, row.reserved) for row in rows}, settled


async def reserve(
    connection: AsyncConnection,
    raised: Sequence[Hold],
    dropped: Collection[UUID],
    balances: Mapping[Place, Balance],
) -> None:
    """Writes what locked holds and balances have now; deletes holds `dropped` that hold nothing."""
    told = _columns(balances) | {
        "reserved": [balance.reserved for balance in balances.values()],
        "generation_id": [hold.generation_id for hold in raised],
        "amount": [hold.amount for hold in raised],
        "dropped": list(dropped),
    }
    await connection.execute(_RESERVE, told)


async def read(connection: AsyncConnection, generation_ids: Sequence[UUID]) -> dict[UUID, Hold]:
    """The holds that there are for the generations, not locked."""
    rows = await connection.execute(_READ, {"generation_ids": list(generation_ids)})
    return {row[0]: Hold(*row) for row in rows}


async def read_balances(
    connection: AsyncConnection, places: Iterable[Place]
) -> dict[Place, Balance]:
    """The balances there are at `places`, not locked."""
    rows = await connection.execute(_BALANCES, _columns(places))
    return {Place(*row[:3]): Balance(row.spent, row.reserved) for row in rows}


async def renew(connection: AsyncConnection, generation_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the generations that have a hold; it is good for another 60 seconds."""
    rows = await connection.execute(_RENEW, {"generation_ids": list(generation_ids)})
    return set(rows.scalars())


async def lock_expired(connection: AsyncConnection, limit: int) -> list[UUID]:
    """Up to `limit` generations whose hold nobody renewed, past those that others work on."""
    return list((await connection.execute(_EXPIRED, {"limit": limit})).scalars())


def _columns(places: Iterable[Place]) -> dict[str, list[object]]:
    listed = list(places)
    return {
        "scope": [place.scope for place in listed],
        "scope_id": [place.scope_id for place in listed],
        "period": [place.period for place in listed],
    }
