"""Keys in PostgreSQL. What an owner asks is answered from the owner's rows alone."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    DateTime,
    LargeBinary,
    Uuid,
    any_,
    column,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.keys.domain import Draft, Key
from services.keys.tables import api_keys

# Told, with the id of the key, when what a key may do has changed.
CHANGES = "khesht_keys_changes"
_EXACT_TO = timedelta(minutes=1)

_COLUMNS = (
    api_keys.c.id,
    api_keys.c.owner_id,
    api_keys.c.name,
    api_keys.c.key_prefix,
    api_keys.c.digest,
    api_keys.c.rate_limit_per_minute,
    api_keys.c.allowed_models,
    api_keys.c.expires_at,
    api_keys.c.created_at,
    api_keys.c.last_used_at,
    api_keys.c.revoked_at,
)

Place = tuple[datetime, UUID]


async def create_key(connection: AsyncConnection, key: Key) -> None:
    """Stores a new key. Again with the same id, it does nothing."""
    values = {
        "id": key.id,
        "owner_id": key.owner_id,
        "name": key.name,
        "key_prefix": key.key_prefix,
        "digest": key.digest,
        "rate_limit_per_minute": key.rate_limit_per_minute,
        "allowed_models": key.allowed_models,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
    }
    query = insert(api_keys).values(values).on_conflict_do_nothing(index_elements=["id"])
    await connection.execute(query)


async def get_key(connection: AsyncConnection, owner_id: UUID, key_id: UUID) -> Key | None:
    """The key, or None when the owner has none of this id."""
    query = select(*_COLUMNS).where(_is(owner_id, key_id))
    row = (await connection.execute(query)).one_or_none()
    return Key(*row) if row else None


async def list_keys(
    connection: AsyncConnection, owner_id: UUID, *, after: Place | None, limit: int
) -> list[Key]:
    """Up to `limit` keys past `after`, newest first, by `api_keys_newest_of_owner`."""
    query = (
        select(*_COLUMNS)
        .where(api_keys.c.owner_id == owner_id)
        .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(api_keys.c.created_at, api_keys.c.id) < after)
    return [Key(*row) for row in await connection.execute(query)]


async def update_key(
    connection: AsyncConnection, owner_id: UUID, key_id: UUID, draft: Draft, fields: Iterable[str]
) -> Key | None:
    """The key with `fields` as in `draft`, at least one, or None when it is revoked or not there."""
    values = {field: getattr(draft, field) for field in fields}
    query = (
        update(api_keys)
        .where(_is(owner_id, key_id), api_keys.c.revoked_at.is_(None))
        .values(values)
        .returning(*_COLUMNS)
    )
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    await _tell(connection, key_id)
    return Key(*row)


async def revoke_key(
    connection: AsyncConnection, owner_id: UUID, key_id: UUID, now: datetime
) -> bool:
    """Whether there is such a key. It is revoked, since `now` or earlier."""
    query = (
        update(api_keys)
        .where(_is(owner_id, key_id))
        .values(revoked_at=func.coalesce(api_keys.c.revoked_at, now))
    )
    if not (await connection.execute(query)).rowcount:
        return False
    await _tell(connection, key_id)
    return True


async def keys_of(connection: AsyncConnection, digests: Sequence[bytes]) -> list[Key]:
    """The keys of any owner that have these digests, by `api_keys_digest_is_unique`."""
    wanted = any_(literal(list(digests), ARRAY(LargeBinary)))
    query = select(*_COLUMNS).where(api_keys.c.digest == wanted)
    return [Key(*row) for row in await connection.execute(query)]


async def set_last_used(connection: AsyncConnection, used_at: Mapping[UUID, datetime]) -> None:
    """Moves last uses forward, in one statement; one that is right to a minute stays."""
    arrays = (
        literal(list(used_at), ARRAY(Uuid)),
        literal(list(used_at.values()), ARRAY(DateTime(timezone=True))),
    )
    columns = (column("id", Uuid), column("used_at", DateTime(timezone=True)))
    used = func.unnest(*arrays).table_valued(*columns, name="used").render_derived()
    before = api_keys.c.last_used_at
    query = (
        update(api_keys)
        .where(api_keys.c.id == used.c.id)
        .where(or_(before.is_(None), before < used.c.used_at - _EXACT_TO))
        .values(last_used_at=used.c.used_at)
    )
    await connection.execute(query)


async def _tell(connection: AsyncConnection, key_id: UUID) -> None:
    """Tells every replica, when the transaction is committed."""
    await connection.execute(select(func.pg_notify(CHANGES, str(key_id))))


def _is(owner_id: UUID, key_id: UUID) -> ColumnElement[bool]:
    return (api_keys.c.owner_id == owner_id) & (api_keys.c.id == key_id)
