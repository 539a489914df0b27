"""Looks up a provider's name, and gives no address that a provider may not have.

The connection goes to the very addresses that were looked at here, so a name that
stands for another address a moment later gains nothing.
"""

import socket

import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

from services.chat.domain import addresses
from services.chat.domain.provider import Account

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("providers")


class Resolver(AbstractResolver):
    """The resolver of one provider."""

    def __init__(self, account: Account, names: AbstractResolver) -> None:
        """Asks `names`, which it closes."""
        self._account = account
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of `host`. Raises OSError when one of them is not permitted."""
        found = await self._names.resolve(host, port, family)
        for each in found:
            if not addresses.permitted(each["host"], private=self._account.private):
                log.warning(
                    "a provider's address is refused",
                    provider=self._account.name,
                    host=host,
                    address=each["host"],
                )
                raise OSError(None, f"{host} stands for an address that is not public")
        return found

    async def close(self) -> None:
        """Closes the resolver that it asks."""
        await self._names.close()

    aclose = close
