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

from services.keys.domain.keys import Draft, Key
from services.keys.store.changes import tell
from services.keys.tables import api_keys

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
    api_keys.c.token_limit_per_minute,
    api_keys.c.monthly_budget,
    api_keys.c.total_budget,
    api_keys.c.soft_budget,
    api_keys.c.previous_digest,
    api_keys.c.previous_expires_at,
)

Place = tuple[datetime, UUID]


async def create_key(connection: AsyncConnection, key: Key, most: int) -> bool:
    """Whether the key is stored; False when its owner has `most` others that are good.

    Again with the same id, it changes nothing. Creations of one owner wait for each other.
    """
    owner = func.hashtextextended(f"keys of {key.owner_id}", 0)
    await connection.execute(select(func.pg_advisory_xact_lock(owner)))
    good = select(func.count()).where(
        api_keys.c.owner_id == key.owner_id,
        api_keys.c.id != key.id,
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now()),
    )
    if (await connection.execute(good)).scalar_one() >= most:
        return False
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
        "token_limit_per_minute": key.token_limit_per_minute,
        "monthly_budget": key.monthly_budget,
        "total_budget": key.total_budget,
        "soft_budget": key.soft_budget,
    }
    query = insert(api_keys).values(values).on_conflict_do_nothing(index_elements=["id"])
    await connection.execute(query)
    return True


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
    await tell(connection, key_id)
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
    await tell(connection, key_id)
    return True


async def rotate_key(
    connection: AsyncConnection,
    owner_id: UUID,
    key_id: UUID,
    digest: bytes,
    key_prefix: str,
    previous_expires_at: datetime,
    expires_at: datetime | None = None,
) -> Key | None:
    """The key, with another secret unless it is revoked, or None when it is not there.

    The secret it had is good until `previous_expires_at`, and no longer than the key was.
    One that has expired changes only with a new `expires_at`. Again, it changes nothing.
    """
    changes: dict[str, object] = {
        "digest": digest,
        "key_prefix": key_prefix,
        "previous_digest": api_keys.c.digest,
        "previous_expires_at": func.least(previous_expires_at, api_keys.c.expires_at),
    }
    query = update(api_keys).where(
        _is(owner_id, key_id), api_keys.c.revoked_at.is_(None), api_keys.c.digest != digest
    )
    if expires_at is None:
        query = query.where(
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > func.now())
        )
    else:
        changes["expires_at"] = expires_at
    query = query.values(changes)
    await connection.execute(query)
    await tell(connection, key_id)
    return await get_key(connection, owner_id, key_id)


async def keys_by_id(connection: AsyncConnection, key_ids: Iterable[UUID]) -> dict[UUID, Key]:
    """The keys of any owner that have these ids."""
    wanted = any_(literal(list(key_ids), ARRAY(Uuid)))
    query = select(*_COLUMNS).where(api_keys.c.id == wanted)
    return {row[0]: Key(*row) for row in await connection.execute(query)}


async def keys_of(connection: AsyncConnection, digests: Sequence[bytes]) -> dict[bytes, Key]:
    """The keys of any owner that have these digests, now or before the last rotation."""
    wanted = any_(literal(list(digests), ARRAY(LargeBinary)))
    query = select(*_COLUMNS).where(
        or_(api_keys.c.digest == wanted, api_keys.c.previous_digest == wanted)
    )
    keys = [Key(*row) for row in await connection.execute(query)]
    return {digest: key for key in keys for digest in key.digests}


async def token_limits(connection: AsyncConnection, key_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The limits of tokens a minute of those keys that have one."""
    query = select(api_keys.c.id, api_keys.c.token_limit_per_minute).where(
        api_keys.c.id == any_(literal(list(key_ids), ARRAY(Uuid))),
        api_keys.c.token_limit_per_minute.is_not(None),
    )
    return {key_id: limit for key_id, limit in await connection.execute(query)}


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


def _is(owner_id: UUID, key_id: UUID) -> ColumnElement[bool]:
    return (api_keys.c.owner_id == owner_id) & (api_keys.c.id == key_id)
