"""Holds back whoever tries passwords (NIST SP 800-63B-4, section 3.2.2), and who else is many."""

import math
from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from services.auth.domain.attempts import Counter, Limits
from services.auth.store import attempts, devices

Counters = tuple[Counter, ...]


class Attempts:
    """Counts each attempt before it is known to fail, so that many at once can't slip by.

    In a transaction that is run again an attempt may count twice, which harms nobody.
    """

    def __init__(self, limits: Limits) -> None:
        """Takes how many failures fit in which time."""
        self._limits = limits

    async def login(self, connection: AsyncConnection, account: str, address: str) -> Counters:
        """Counts a login, and gives what it was counted under.

        `account` is the account's id, or the name tried when there is none; the same is done
        for both. An address from which the account was logged in to before is not held back
        by what others try. Raises ResourceExhausted; then it is not counted.
        """
        device = self._limits.device(account, address)
        known = device is not None and await devices.is_known(connection, device)
        return await _try(
            connection,
            None if known else self._limits.account(account),
            self._limits.login(account, address),
            self._limits.address(address),
        )

    async def succeed(
        self, connection: AsyncConnection, counters: Counters, account: str, address: str
    ) -> None:
        """Takes a login back, and all failures of the account from the same address before it.

        The address is known to the account from now on.
        """
        for counter in counters:
            await attempts.take_back(connection, counter)
        await attempts.forget(connection, self._limits.login(account, address))
        if device := self._limits.device(account, address):
            await devices.learn(connection, account, device)

    async def check_current(self, connection: AsyncConnection, session_id: str) -> None:
        """Counts a session's try of the current password. Raises ResourceExhausted.

        Only this session's tries hold it back.
        """
        await _try(connection, self._limits.session(session_id))

    async def forget_current(self, connection: AsyncConnection, session_id: str) -> None:
        """Forgets the session's tries."""
        await attempts.forget(connection, self._limits.session(session_id))

    async def register(self, connection: AsyncConnection, address: str) -> None:
        """Counts a registration. Raises ResourceExhausted."""
        wait_s = await _count(connection, (self._limits.registrations(address),))
        if wait_s:
            raise errors.ResourceExhausted(
                "TOO_MANY_REGISTRATIONS",
                f"too many registrations from this address; wait {wait_s} seconds",
                metadata={"retry_after_seconds": str(wait_s)},
                retry_after=wait_s,
            )


async def _try(connection: AsyncConnection, *counters: Counter | None) -> Counters:
    """Counts under those counters that are there, and gives them. Raises ResourceExhausted."""
    counted = tuple(counter for counter in counters if counter)
    wait_s = await _count(connection, counted)
    if wait_s:
        raise errors.ResourceExhausted(
            "TOO_MANY_ATTEMPTS",
            f"too many failed logins; wait {wait_s} seconds",
            metadata={"retry_after_seconds": str(wait_s)},
            retry_after=wait_s,
        )
    return counted


async def _count(connection: AsyncConnection, counters: Iterable[Counter | None]) -> int:
    """Seconds until there is room under every counter, or 0 when this one is counted.

    The order is the same for all, so that no two wait for each other.
    """
    for counter in counters:
        wait = await attempts.count(connection, counter) if counter else None
        if wait is not None:
            return max(1, math.ceil(wait.total_seconds()))
    await attempts.sweep(connection)
    return 0
