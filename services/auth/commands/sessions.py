"""Sessions: logging in, refreshing, looking and leaving."""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors, pages
from mesh.db import Database
from mesh.identity.principal import Principal
from services.auth.commands.attempts import Attempts, Counters
from services.auth.commands.refusals import (
    account_over,
    session_ended,
    session_over,
    wrong_password,
)
from services.auth.domain.accounts import Account, User
from services.auth.domain.sessions import Client, Refresh, Session, Tokens, judge
from services.auth.passwords import Passwords
from services.auth.store import accounts, sessions
from services.auth.tokens import AccessTokens, RefreshTokens

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("auth")


class Sessions:
    """The sessions of all accounts."""

    def __init__(
        self,
        database: Database,
        passwords: Passwords,
        attempts: Attempts,
        access: AccessTokens,
        refresh: RefreshTokens,
        page_tokens: pages.PageTokens,
        life: timedelta,
    ) -> None:
        """Takes what sessions are made with; one that is not refreshed ends after `life`."""
        self._database = database
        self._passwords = passwords
        self._attempts = attempts
        self._access = access
        self._refresh = refresh
        self._pages = page_tokens
        self._life = life

    async def login(self, name: str, password: str, client: Client) -> Tokens:
        """The tokens of a new session. `name` is a username or an email.

        Raises Unauthenticated, the same in text and time for unknown names, and
        ResourceExhausted before any work on the password; Unavailable in a flood.
        """

        async def begin(connection: AsyncConnection) -> tuple[Account | None, Counters]:
            account = await accounts.find_account(connection, name)
            counted = _counted(account, name)
            return account, await self._attempts.login(connection, counted, client.address)

        async with self._passwords.place(client.address):
            account, counters = await self._database.run(begin)
            kept = account.password_hash if account else None
            right = await self._passwords.check(password, kept)
            if account is None or not right:
                raise wrong_password()
            if self._passwords.is_outdated(account.password_hash):
                await self._rehash(account, password)
        return await self._start(account, client, counters)

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens of the session; `refresh_token` is spent.

        One that was spent seconds ago gets the same successor; one spent before
        that ends the session. Raises Unauthenticated.
        """
        read = self._refresh.read(refresh_token)
        if read is None:
            raise _invalid_refresh_token()
        session_id, generation = read

        async def spend(connection: AsyncConnection) -> tuple[User, Refresh] | None:
            held = await sessions.hold_session(connection, session_id)
            if held is None:
                return None
            verdict = judge(generation, held.generation, held.last_used_at, held.now)
            if verdict is Refresh.NEXT:
                await sessions.advance_session(connection, session_id, held.now, self._life)
            elif verdict is Refresh.REUSED:
                await sessions.end_session(connection, session_id)
            return held.user, verdict

        spent = await self._database.run(spend)
        if spent is None:
            raise _invalid_refresh_token()
        user, verdict = spent
        if verdict is Refresh.REUSED:
            log.warning(
                "a spent refresh token came back: its session was ended",
                session_id=str(session_id),
                user_id=str(user.id),
            )
            raise _invalid_refresh_token()
        return self._tokens(user, session_id, generation + 1)

    async def list(
        self, caller: Principal, page_size: int, page_token: str
    ) -> tuple[list[Session], str]:
        """A page of live sessions, newest first, and the token of the next or "".

        Raises Unauthenticated, InvalidRequest.
        """
        name, size = f"sessions/{caller.user_id}", pages.size(page_size)
        place = self._pages.read(name, page_token)
        after = (datetime.fromisoformat(place[0]), UUID(place[1])) if place else None
        found = await self._database.run(
            lambda c: sessions.list_sessions(c, caller, after=after, limit=size + 1)
        )
        if found is None:
            raise session_ended()
        page = found[:size]
        if len(found) <= size:
            return page, ""
        last = [page[-1].created_at.isoformat(), str(page[-1].id)]
        return page, self._pages.write(name, last)

    async def logout(self, caller: Principal) -> None:
        """Ends the session that calls. Raises Unauthenticated when it has ended."""
        if caller.session_id is None or not await self._end(caller, caller.session_id):
            raise session_ended()

    async def revoke(self, caller: Principal, session_id: UUID) -> None:
        """Ends a session of the caller. Raises NotFound, Unauthenticated."""
        if await self._end(caller, session_id):
            return
        if not await self._database.run(lambda c: sessions.is_alive(c, caller)):
            raise session_ended()
        raise errors.NotFound(
            "SESSION_NOT_FOUND", "no such session", metadata={"session_id": str(session_id)}
        )

    async def ended(
        self, user_ids: Collection[UUID], session_ids: Collection[UUID]
    ) -> dict[UUID, errors.Unauthenticated]:
        """What callers are told of those accounts that are gone, and sessions that have ended."""

        async def read(connection: AsyncConnection) -> tuple[set[UUID], set[UUID]]:
            there = await accounts.present(connection, user_ids)
            alive = await sessions.alive(connection, session_ids)
            return there, alive

        there, alive = await self._database.run(read)
        gone, over = set(user_ids) - there, set(session_ids) - alive
        return dict.fromkeys(over, session_over()) | dict.fromkeys(gone, account_over())

    async def _start(self, account: Account, client: Client, counters: Counters) -> Tokens:
        user, session_id = account.user, uuid4()

        async def start(connection: AsyncConnection) -> None:
            # Whoever changes the password ends all sessions, and this one must
            # not come in behind.
            if not await accounts.hold_password(connection, account):
                raise wrong_password()
            made = await sessions.create_session(
                connection,
                session_id,
                user_id=user.id,
                user_agent=client.user_agent,
                life=self._life,
            )
            if made:
                await self._attempts.succeed(connection, counters, str(user.id), client.address)
            await sessions.sweep(connection)

        await self._database.run(start)
        return self._tokens(user, session_id, 0)

    async def _rehash(self, account: Account, password: str) -> None:
        hashed = await self._passwords.hash(password)
        await self._database.run(lambda c: accounts.rehash_password(c, account, hashed))

    async def _end(self, caller: Principal, session_id: UUID) -> bool:
        ended = False

        async def end(connection: AsyncConnection) -> None:
            # Kept over a run whose commit was lost: the next one finds nothing.
            nonlocal ended
            ended = await sessions.end_own_session(connection, caller, session_id) or ended

        await self._database.run(end)
        return ended

    def _tokens(self, user: User, session_id: UUID, generation: int) -> Tokens:
        return Tokens(
            self._access.sign(user, session_id),
            self._access.seconds,
            self._refresh.write(session_id, generation),
        )


def _counted(account: Account | None, name: str) -> str:
    return str(account.user.id) if account else name.lower()


def _invalid_refresh_token() -> errors.Unauthenticated:
    return errors.Unauthenticated(
        "INVALID_REFRESH_TOKEN", "the refresh token is not good any more; log in again"
    )
