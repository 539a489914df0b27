"""What Authorize does: who calls, and may they; without a database where it can be."""

import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID, uuid5

from services.keys import secret
from services.keys.cache import KeyCache
from services.keys.domain import Ahead, Decision, Key, RateLimit, Verdict
from services.keys.last_used import LastUsed
from services.keys.limiter import Limiter
from services.keys.secret import Digests

ALONE = Ahead()
# Any namespace of our own: addresses have limits beside those of accounts.
_ADDRESSES = UUID("6d8b0a55-95c5-4bb1-9a53-7b3c5b0f6a10")


class Authorizer:
    """Decides on calls. A call is to a model when `model` has names: its id, its aliases."""

    def __init__(
        self,
        digests: Digests,
        cache: KeyCache,
        limiter: Limiter,
        last_used: LastUsed,
        account_limit: int,
    ) -> None:
        """Takes the parts, and the calls a minute that accounts have by access token."""
        self._digests = digests
        self._cache = cache
        self._limiter = limiter
        self._last_used = last_used
        self._account_limit = account_limit

    async def key(self, api_key: str, model: Sequence[str], ahead: Ahead = ALONE) -> Decision:
        """The decision on a call by API key. Raises Unavailable, and never guesses."""
        key = await self._find(api_key)
        if key is None:
            return Decision(Verdict.UNKNOWN)
        now = datetime.now(UTC)
        verdict, limit, further = key.standing(now), None, 0
        if verdict is Verdict.ALLOWED and model:
            if key.may_call(model):
                verdict, limit, further = await self._spend(
                    key.id, key.rate_limit_per_minute, ahead
                )
            else:
                verdict = Verdict.MODEL_NOT_ALLOWED
                _, limit = await self._limiter.spend(key.id, key.rate_limit_per_minute, calls=0)
        if verdict is Verdict.ALLOWED:
            self._last_used.note(key.id, now)
        return Decision(verdict, key.owner_id, key.id, limit, further)

    async def account(self, user_id: UUID, model: Sequence[str], ahead: Ahead = ALONE) -> Decision:
        """The decision on a call by an access token that was verified."""
        if not model:
            return Decision(Verdict.ALLOWED, user_id)
        verdict, limit, further = await self._spend(user_id, self._account_limit, ahead)
        return Decision(verdict, user_id, rate_limit=limit, further_calls=further)

    async def address(self, client_address: str, model: Sequence[str], ahead: Ahead) -> Decision:
        """The decision on a call without a credential, from a network address."""
        decision = await self.account(uuid5(_ADDRESSES, client_address), model, ahead)
        return replace(decision, user_id=None)

    async def _spend(self, who: UUID, limit: int, ahead: Ahead) -> tuple[Verdict, RateLimit, int]:
        """Spends one call, and of the further ones as many as are left."""
        if ahead.unused:
            await self._limiter.spend(who, limit, calls=-ahead.unused)
        allowed, state = await self._limiter.spend(who, limit)
        if not allowed:
            return Verdict.RATE_LIMITED, state, 0
        further = min(ahead.further, state.remaining)
        if further:
            _, state = await self._limiter.spend(who, limit, calls=further)
        return Verdict.ALLOWED, state, further

    async def _find(self, api_key: str) -> Key | None:
        if not secret.is_well_formed(api_key):
            return None
        digest = self._digests.of(api_key)
        key = await self._cache.find(digest)
        return key if key and hmac.compare_digest(key.digest, digest) else None
