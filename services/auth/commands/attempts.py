"""Holds back whoever tries passwords (NIST SP 800-63B-4, section 3.2.2)."""

import math

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from services.auth.domain.attempts import Limits
from services.auth.store import attempts


class Attempts:
    """Counts each attempt before it is known to fail, so that many at once can't slip by."""

    def __init__(self, limits: Limits) -> None:
        """Takes how many failures fit in which time."""
        self._limits = limits

    async def begin(self, connection: AsyncConnection, account: str, address: str) -> None:
        """Counts an attempt. Raises ResourceExhausted; then it is not counted.

        `account` is the account's id, or the name tried when there is none. In
        a transaction that is run again it may count twice, which harms nobody.
        """
        # The account before the address everywhere: no two wait for each other.
        for counter in (self._limits.account(account), self._limits.address(address)):
            wait = await attempts.count(connection, counter) if counter else None
            if wait is not None:
                raise _too_many(wait.total_seconds())
        await attempts.sweep(connection)

    async def succeed(self, connection: AsyncConnection, account: str, address: str) -> None:
        """Takes the attempt back, and all failures of the account before it."""
        await attempts.forget(connection, self._limits.account(account))
        if counter := self._limits.address(address):
            await attempts.take_back(connection, counter)


def _too_many(wait: float) -> errors.ResourceExhausted:
    seconds = max(1, math.ceil(wait))
    return errors.ResourceExhausted(
        "TOO_MANY_ATTEMPTS",
        f"too many failed logins; wait {seconds} seconds",
        metadata={"retry_after_seconds": str(seconds)},
        retry_after=seconds,
    )
