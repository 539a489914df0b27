"""What each RPC about stored credentials of providers does."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

from mesh import errors, pages
from mesh.db import Database
from services.keys.domain.credentials import (
    MOST_PROVIDERS,
    Credential,
    Place,
    last_four,
    missing_prefix,
)
from services.keys.sealing import Sealer
from services.keys.store import credentials as store


class Credentials:
    """The stored credentials of one account at a time."""

    def __init__(
        self,
        database: Database,
        tokens: pages.PageTokens,
        sealer: Sealer,
        changed: Callable[[UUID], None],
    ) -> None:
        """Takes what to call with an account that changed, so that this replica knows at once."""
        self._database = database
        self._tokens = tokens
        self._sealer = sealer
        self._changed = changed

    async def store(self, owner_id: UUID, provider: str, api_key: str) -> Credential:
        """The credential that now is the one for `provider`.

        Raises InvalidRequest, FailedPrecondition.
        """
        if prefix := missing_prefix(provider, api_key):
            raise errors.invalid("api_key", f"API key must start with {prefix}")
        made_id, now = uuid4(), datetime.now(UTC)

        def make(version: int) -> Credential:
            sealed = self._sealer.seal(api_key, Place(owner_id, provider, version))
            return Credential(made_id, owner_id, provider, version, last_four(api_key), sealed, now)

        stored = await self._database.run(
            lambda c: store.store_credential(c, owner_id, provider, make, most=MOST_PROVIDERS)
        )
        if stored is None:
            text = f"an account may store credentials for {MOST_PROVIDERS} providers"
            raise errors.FailedPrecondition("TOO_MANY_CREDENTIALS", text)
        self._changed(owner_id)
        return stored

    async def list(
        self, owner_id: UUID, page_size: int, page_token: str
    ) -> tuple[list[Credential], str]:
        """A page of credentials, and the token of the next or "". Raises InvalidRequest."""
        name, size = f"credentials/{owner_id}", pages.size(page_size)
        place = self._tokens.read(name, page_token)
        after = str(place[0]) if place else ""
        found = await self._database.run(
            lambda c: store.of_owner(c, owner_id, after=after, limit=size + 1)
        )
        page = found[:size]
        if len(found) <= size:
            return page, ""
        return page, self._tokens.write(name, [page[-1].provider])

    async def delete(self, owner_id: UUID, named: str) -> None:
        """Deletes by name of provider or by id. Raises NotFound."""
        if not await self._database.run(lambda c: store.delete_credential(c, owner_id, named)):
            raise _missing(named)
        self._changed(owner_id)

    async def reveal(self, owner_id: UUID, provider: str) -> str:
        """The provider's key; sealed anew if it was with the secret of before.

        Raises NotFound, FailedPrecondition.
        """
        found = await self._database.run_one(lambda c: store.get_credential(c, owner_id, provider))
        if found is None:
            raise _missing(provider)
        opened = self._sealer.open(found.sealed, found.place)
        if opened is None:
            text = f"the credential for {provider} can't be read any more; store it again"
            raise errors.FailedPrecondition("CREDENTIAL_UNREADABLE", text)
        if not self._sealer.is_of_now(found.sealed, found.place):
            sealed = self._sealer.seal(opened, found.place)
            await self._database.run_one(lambda c: store.reseal_credential(c, found.id, sealed))
        return opened


def _missing(named: str) -> errors.NotFound:
    return errors.NotFound("CREDENTIAL_NOT_FOUND", f"no credential for {named} is stored")
