"""Stored credentials of providers in PostgreSQL, encrypted before they come here."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Text, Uuid, any_, cast, delete, func, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.keys.domain.credentials import Credential
from services.keys.domain.decisions import Account
from services.keys.store.changes import tell
from services.keys.tables import provider_credentials as credentials

_COLUMNS = (
    credentials.c.id,
    credentials.c.owner_id,
    credentials.c.provider,
    credentials.c.version,
    credentials.c.last_four,
    credentials.c.sealed,
    credentials.c.created_at,
)


async def store_credential(
    connection: AsyncConnection,
    owner_id: UUID,
    provider: str,
    make: Callable[[int], Credential],
    *,
    most: int,
) -> Credential | None:
    """The credential that `make` makes for the next version, stored in place of the one before.

    None when the owner has `most` of other providers. Again with the same id, it changes
    nothing. Who stores for one owner meanwhile waits.
    """
    await connection.execute(select(func.pg_advisory_xact_lock(owner_id.int & (2**63 - 1))))
    found = await of_owner(connection, owner_id, after="", limit=most + 1)
    before = next((each for each in found if each.provider == provider), None)
    if before is None and len(found) >= most:
        return None
    made = make(before.version + 1 if before else 1)
    if before is not None and before.id == made.id:
        return before
    values = {column.name: getattr(made, column.name) for column in _COLUMNS}
    query = insert(credentials).values(values)
    changed = query.on_conflict_do_update(
        constraint="provider_credentials_one_of_owner",
        set_={name: query.excluded[name] for name in values},
    )
    await connection.execute(changed)
    await tell(connection, owner_id)
    return made


async def get_credential(
    connection: AsyncConnection, owner_id: UUID, provider: str
) -> Credential | None:
    """The credential, or None when the owner has none for `provider`."""
    query = select(*_COLUMNS).where(
        credentials.c.owner_id == owner_id, credentials.c.provider == provider
    )
    row = (await connection.execute(query)).one_or_none()
    return Credential(*row) if row else None


async def of_owner(
    connection: AsyncConnection, owner_id: UUID, *, after: str, limit: int
) -> list[Credential]:
    """Up to `limit` credentials of providers past `after`, by name of provider."""
    query = (
        select(*_COLUMNS)
        .where(credentials.c.owner_id == owner_id, credentials.c.provider > after)
        .order_by(credentials.c.provider)
        .limit(limit)
    )
    return [Credential(*row) for row in await connection.execute(query)]


async def delete_credential(connection: AsyncConnection, owner_id: UUID, named: str) -> bool:
    """Whether there was one, by name of provider or by id. It is gone."""
    query = delete(credentials).where(
        credentials.c.owner_id == owner_id,
        or_(credentials.c.provider == named, cast(credentials.c.id, Text) == named),
    )
    if not (await connection.execute(query)).rowcount:
        return False
    await tell(connection, owner_id)
    return True


async def reseal_credential(
    connection: AsyncConnection, credential_id: UUID, sealed: bytes
) -> None:
    """Replaces what is stored of this version, which nobody but keys can tell."""
    query = update(credentials).where(credentials.c.id == credential_id).values(sealed=sealed)
    await connection.execute(query)


async def accounts_of(
    connection: AsyncConnection, account_ids: Sequence[UUID]
) -> dict[UUID, Account]:
    """All of these accounts, also those that have stored nothing."""
    query = (
        select(credentials.c.owner_id, credentials.c.provider)
        .where(credentials.c.owner_id == any_(literal(list(account_ids), ARRAY(Uuid))))
        .order_by(credentials.c.provider)
    )
    providers: dict[UUID, tuple[str, ...]] = dict.fromkeys(account_ids, ())
    for owner_id, provider in await connection.execute(query):
        providers[owner_id] += (provider,)
    return {owner_id: Account(owner_id, names) for owner_id, names in providers.items()}
