"""Sessions in PostgreSQL. One is alive while its row is there and has not expired."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.identity.principal import Principal
from services.auth.domain.accounts import Account, User
from services.auth.domain.sessions import Session
from services.auth.store.accounts import ACCOUNT_COLUMNS, USER_COLUMNS, to_account
from services.auth.tables import sessions, users

_COLUMNS = (
    sessions.c.id,
    sessions.c.created_at,
    sessions.c.last_used_at,
    sessions.c.expires_at,
    sessions.c.user_agent,
)
_SWEPT_AT_ONCE = 10
_caller = sessions.alias("caller")


@dataclass(frozen=True, slots=True)
class Held:
    """A live session, locked: whose it is, and where its refresh tokens stand."""

    user: User
    generation: int
    last_used_at: datetime
    now: datetime


async def create_session(
    connection: AsyncConnection,
    session_id: UUID,
    *,
    user_id: UUID,
    user_agent: str,
    life: timedelta,
) -> bool:
    """Whether the session was made now; False when it was there."""
    query = insert(sessions).values(
        id=session_id,
        user_id=user_id,
        created_at=func.now(),
        last_used_at=func.now(),
        expires_at=func.now() + life,
        user_agent=user_agent,
        generation=0,
    )
    query = query.on_conflict_do_nothing(index_elements=[sessions.c.id])
    return (await connection.execute(query.returning(sessions.c.id))).first() is not None


async def hold_session(connection: AsyncConnection, session_id: UUID) -> Held | None:
    """The live session, which no other transaction changes until this one's end."""
    query = (
        select(
            *USER_COLUMNS,
            sessions.c.generation,
            sessions.c.last_used_at,
            func.clock_timestamp(),
        )
        .join_from(sessions, users, users.c.id == sessions.c.user_id)
        .where(sessions.c.id == session_id, sessions.c.expires_at > func.now())
        .with_for_update(of=sessions)
    )
    row = (await connection.execute(query)).one_or_none()
    return Held(User(*row[:5]), row[5], row[6], row[7]) if row else None


async def advance_session(
    connection: AsyncConnection, session_id: UUID, now: datetime, life: timedelta
) -> None:
    """Spends the session's refresh token, and lets it live on."""
    query = update(sessions).where(sessions.c.id == session_id)
    await connection.execute(
        query.values(generation=sessions.c.generation + 1, last_used_at=now, expires_at=now + life)
    )


async def get_account(connection: AsyncConnection, caller: Principal) -> Account | None:
    """The caller's account, or None when the session is not alive."""
    query = (
        select(*ACCOUNT_COLUMNS)
        .join_from(_caller, users, users.c.id == _caller.c.user_id)
        .where(_is_alive(caller))
    )
    row = (await connection.execute(query)).one_or_none()
    return to_account(row) if row else None


async def is_alive(connection: AsyncConnection, caller: Principal) -> bool:
    """Whether the session of the caller's access token is."""
    query = select(exists().where(_is_alive(caller)))
    return bool((await connection.execute(query)).scalar_one())


async def alive(connection: AsyncConnection, session_ids: Collection[UUID]) -> set[UUID]:
    """Those of the sessions that are."""
    query = select(sessions.c.id).where(
        sessions.c.id.in_(session_ids), sessions.c.expires_at > func.now()
    )
    return set((await connection.execute(query)).scalars())


async def list_sessions(
    connection: AsyncConnection,
    caller: Principal,
    *,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Session] | None:
    """Up to `limit` live sessions past `after`, newest first, by `sessions_of_user`.

    None when the caller's own is not alive.
    """
    listed = (sessions.c.user_id == _caller.c.user_id) & (sessions.c.expires_at > func.now())
    if after is not None:
        listed &= tuple_(sessions.c.created_at, sessions.c.id) < after
    query = (
        select(*_COLUMNS)
        .select_from(_caller.outerjoin(sessions, listed))
        .where(_is_alive(caller))
        .order_by(sessions.c.created_at.desc(), sessions.c.id.desc())
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    return [Session(*row) for row in rows if row[0]] if rows else None


async def end_session(connection: AsyncConnection, session_id: UUID) -> None:
    """Ends a session, whosever it is."""
    await connection.execute(delete(sessions).where(sessions.c.id == session_id))


async def end_own_session(connection: AsyncConnection, caller: Principal, session_id: UUID) -> bool:
    """Whether there was such a live session of the caller to end.

    Only a live session may end another.
    """
    query = delete(sessions).where(
        sessions.c.id == session_id,
        sessions.c.user_id == caller.user_id,
        sessions.c.expires_at > func.now(),
        exists().where(_is_alive(caller)),
    )
    return (await connection.execute(query)).rowcount > 0


async def end_other_sessions(connection: AsyncConnection, caller: Principal) -> None:
    """Ends all sessions of the caller's account but the one that calls."""
    query = delete(sessions).where(
        sessions.c.user_id == caller.user_id, sessions.c.id != caller.session_id
    )
    await connection.execute(query)


async def sweep(connection: AsyncConnection) -> None:
    """Deletes some sessions that expired. Waits for nobody."""
    old = (
        select(sessions.c.id)
        .where(sessions.c.expires_at <= func.now())
        .limit(_SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    await connection.execute(delete(sessions).where(sessions.c.id.in_(old)))


def _is_alive(caller: Principal) -> ColumnElement[bool]:
    return (
        (_caller.c.id == caller.session_id)
        & (_caller.c.user_id == caller.user_id)
        & (_caller.c.expires_at > func.now())
    )
