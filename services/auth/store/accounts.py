"""Accounts in PostgreSQL."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.auth.domain.accounts import ADMIN, USER, Account, User
from services.auth.tables import users

USER_COLUMNS = (
    users.c.id,
    users.c.username,
    users.c.email,
    users.c.role,
    users.c.created_at,
)
ACCOUNT_COLUMNS = (*USER_COLUMNS, users.c.password_hash, users.c.password_changed_at)
# Any number that no other lock of the database has: "auth".
_FIRST_ACCOUNT = 0x61757468


async def present(connection: AsyncConnection, user_ids: Collection[UUID]) -> set[UUID]:
    """Those of the accounts that are there."""
    query = select(users.c.id).where(users.c.id.in_(user_ids))
    return set((await connection.execute(query)).scalars())


async def create_account(
    connection: AsyncConnection,
    user_id: UUID,
    *,
    username: str | None,
    email: str,
    password_hash: str,
    created_at: datetime,
) -> User:
    """The account under this id, made now unless it was there.

    It is an admin if it is the first of all. Raises IntegrityError with
    `users_email` or `users_username` when another has the name.
    """
    query = insert(users).values(
        id=user_id,
        username=username,
        email=email,
        role=ADMIN if await _is_first(connection) else USER,
        password_hash=password_hash,
        password_changed_at=created_at,
        created_at=created_at,
    )
    await connection.execute(query.on_conflict_do_nothing(index_elements=[users.c.id]))
    made = select(*USER_COLUMNS).where(users.c.id == user_id)
    return User(*(await connection.execute(made)).one())


async def find_account(connection: AsyncConnection, name: str) -> Account | None:
    """The account with this username or email, in any case."""
    if "\0" in name:  # Nothing is called so, and PostgreSQL refuses to look.
        return None
    name = name.lower()
    column = users.c.email if "@" in name else func.lower(users.c.username)
    query = select(*ACCOUNT_COLUMNS).where(column == name)
    row = (await connection.execute(query)).one_or_none()
    return to_account(row) if row else None


async def hold_password(connection: AsyncConnection, account: Account) -> bool:
    """Whether the password is as it was read; if so, until the transaction's end."""
    query = select(users.c.id).where(
        users.c.id == account.user.id,
        users.c.password_changed_at == account.password_changed_at,
    )
    return (await connection.execute(query.with_for_update(read=True))).first() is not None


async def rehash_password(connection: AsyncConnection, account: Account, new_hash: str) -> None:
    """Keeps another hash of the same password, unless it was changed by now."""
    query = update(users).where(
        users.c.id == account.user.id,
        users.c.password_changed_at == account.password_changed_at,
    )
    await connection.execute(query.values(password_hash=new_hash))


async def set_password(
    connection: AsyncConnection, account: Account, new_hash: str, changed_at: datetime
) -> bool:
    """Whether the password was as it was read, and is another one now.

    True as well when this very change was made before.
    """
    query = update(users).where(
        users.c.id == account.user.id,
        users.c.password_changed_at.in_((account.password_changed_at, changed_at)),
    )
    query = query.values(password_hash=new_hash, password_changed_at=changed_at)
    return (await connection.execute(query)).rowcount > 0


def to_account(row: Row[*tuple[Any, ...]]) -> Account:
    """The account that a row of ACCOUNT_COLUMNS holds."""
    return Account(User(*row[:5]), *row[5:])


async def _is_first(connection: AsyncConnection) -> bool:
    """Whether there is no account; then no other first one is made until we are done."""
    anyone = select(exists(select(users.c.id)))
    if (await connection.execute(anyone)).scalar_one():
        return False
    await connection.execute(select(func.pg_advisory_xact_lock(_FIRST_ACCOUNT)))
    return not (await connection.execute(anyone)).scalar_one()
