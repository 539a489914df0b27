"""Accounts: registering, and changing the password."""

from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import db, errors
from mesh.db import Database
from mesh.identity.principal import Principal
from services.auth.commands.attempts import Attempts
from services.auth.commands.refusals import session_ended, wrong_password
from services.auth.domain.accounts import User
from services.auth.domain.passwords import Policy
from services.auth.passwords import Passwords
from services.auth.store import accounts, sessions

_TAKEN = {
    "users_email": ("EMAIL_TAKEN", "an account with this email exists"),
    "users_username": ("USERNAME_TAKEN", "an account with this username exists"),
}


class Accounts:
    """The accounts of all people."""

    def __init__(
        self, database: Database, passwords: Passwords, policy: Policy, attempts: Attempts
    ) -> None:
        """Takes where accounts are kept, and what passwords go through."""
        self._database = database
        self._passwords = passwords
        self._policy = policy
        self._attempts = attempts

    async def register(self, username: str | None, email: str, password: str, address: str) -> User:
        """The new account, an admin if it is the first. `address` is the client's, or "".

        Raises InvalidRequest, AlreadyExists, ResourceExhausted, and Unavailable in a flood.
        """
        email = email.lower()
        self._policy.check("password", password, (username, email))
        user_id, created_at = uuid4(), datetime.now(UTC)
        async with self._passwords.place(address):
            await self._database.run(lambda c: self._attempts.register(c, address))
            hashed = await self._passwords.hash(password)
        try:
            return await self._database.run(
                lambda c: accounts.create_account(
                    c,
                    user_id,
                    username=username,
                    email=email,
                    password_hash=hashed,
                    created_at=created_at,
                )
            )
        except IntegrityError as error:
            taken = _TAKEN.get(db.broken_constraint(error))
            if taken is None:
                raise
            raise errors.AlreadyExists(*taken) from None

    async def get(self, caller: Principal) -> User:
        """The caller's account. Raises Unauthenticated when the session ended."""
        account = await self._database.run(lambda c: sessions.get_account(c, caller))
        if account is None:
            raise session_ended()
        return account.user

    async def change_password(self, caller: Principal, current: str, new: str) -> None:
        """Sets the password and ends all other sessions of the account.

        Raises InvalidRequest, Unauthenticated, ResourceExhausted, and Unavailable
        in a flood.
        """
        account = await self._database.run(lambda c: sessions.get_account(c, caller))
        if account is None:
            raise session_ended()
        user, session_id = account.user, str(caller.session_id)
        self._policy.check("new_password", new, (user.username, user.email))
        async with self._passwords.place(caller.user_id):
            await self._database.run(lambda c: self._attempts.check_current(c, session_id))
            if not await self._passwords.check(current, account.password_hash):
                raise wrong_password()
            hashed, changed_at = await self._passwords.hash(new), datetime.now(UTC)

        async def change(connection: AsyncConnection) -> None:
            if not await accounts.set_password(connection, account, hashed, changed_at):
                raise wrong_password()
            if not await sessions.is_alive(connection, caller):
                raise session_ended()
            await sessions.end_other_sessions(connection, caller)
            await self._attempts.forget_current(connection, session_id)

        await self._database.run(change)
