"""What Authorize does: who calls, and may they; without a database where it can be."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

from services.keys import secret
from services.keys.cache import Cache
from services.keys.domain.decisions import Account, Ahead, Decision
from services.keys.domain.keys import Key, Verdict
from services.keys.last_used import LastUsed
from services.keys.meter import Meter, Rates
from services.keys.secret import Digests

ALONE = Ahead()
# Any namespace of our own: addresses have limits beside those of accounts.
_ADDRESSES = UUID("6d8b0a55-95c5-4bb1-9a53-7b3c5b0f6a10")


class Authorizer:
    """Decides on calls. A call is to a model when `model` has names: its id, its aliases."""

    def __init__(
        self,
        digests: Digests,
        keys: Cache[bytes, Key],
        accounts: Cache[UUID, Account],
        meter: Meter,
        last_used: LastUsed,
    ) -> None:
        """Takes the parts."""
        self._digests = digests
        self._keys = keys
        self._accounts = accounts
        self._meter = meter
        self._last_used = last_used

    async def key(self, api_key: str, model: Sequence[str], ahead: Ahead = ALONE) -> Decision:
        """The decision on a call by API key. Raises Unavailable, and never guesses."""
        if not secret.is_well_formed(api_key):
            return Decision(Verdict.UNKNOWN)
        digest = self._digests.of(api_key)
        key = await self._keys.find(digest)
        if key is None:
            return Decision(Verdict.UNKNOWN)
        now = datetime.now(UTC)
        call = Decision(key.standing_of(digest, now), key.owner_id, key.id)
        if call.verdict is Verdict.ALLOWED and model:
            call = await self._call_of(key, model, ahead, call)
        if call.verdict is Verdict.ALLOWED:
            self._last_used.note(key.id, now)
            call = replace(
                call,
                budget=key.budget,
                token_limit=key.token_limit_per_minute,
                allowed_models=key.allowed_models,
                secret_id=key.secret_id(digest),
            )
        return call

    async def account(self, user_id: UUID, model: Sequence[str], ahead: Ahead = ALONE) -> Decision:
        """The decision on a call by an access token that was verified. Raises Unavailable."""
        call, rates = Decision(Verdict.ALLOWED, user_id), self._meter.of_accounts
        if not model:
            return call
        call = replace(call, token_limit=rates.tokens, credential_providers=await self._of(user_id))
        return await self._meter.spend(user_id, rates, ahead, call)

    async def address(self, client_address: str, model: Sequence[str], ahead: Ahead) -> Decision:
        """The decision on a call without a credential, from a network address."""
        call = Decision(Verdict.ALLOWED)
        if not model:
            return call
        who, rates = uuid5(_ADDRESSES, client_address), Rates(self._meter.of_accounts.calls)
        return await self._meter.spend(who, rates, ahead, call)

    async def _call_of(
        self, key: Key, model: Sequence[str], ahead: Ahead, call: Decision
    ) -> Decision:
        rates = Rates(key.rate_limit_per_minute, key.token_limit_per_minute)
        if not key.may_call(model):
            refused = replace(call, verdict=Verdict.MODEL_NOT_ALLOWED)
            return await self._meter.look(key.id, rates, refused)
        call = replace(call, credential_providers=await self._of(key.owner_id))
        return await self._meter.spend(key.id, rates, ahead, call)

    async def _of(self, user_id: UUID) -> Sequence[str]:
        """The providers for which an account has stored a credential."""
        account = await self._accounts.find(user_id)
        return account.providers if account else ()
