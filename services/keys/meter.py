"""Both limits of a caller: calls a minute, and tokens a minute where they are limited."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from services.keys.domain.decisions import Ahead, Decision, RateLimit, Spent
from services.keys.domain.keys import Verdict
from services.keys.limiter import Limits

TokenLimits = Callable[[Iterable[UUID]], Awaitable[Mapping[UUID, int]]]


@dataclass(frozen=True, slots=True)
class Rates:
    """What a caller may spend in a minute. Tokens of None are not counted."""

    calls: int
    tokens: int | None = None


class Meter:
    """Spends calls before they are made, and tokens when it is known how many they were."""

    def __init__(
        self, calls: Limits, tokens: Limits, of_accounts: Rates, of_keys: TokenLimits
    ) -> None:
        """Takes what counts; the rates of accounts; how to read keys' limits of tokens."""
        self._calls = calls
        self._tokens = tokens
        self.of_accounts = of_accounts
        self._of_keys = of_keys

    async def spend(self, who: UUID, rates: Rates, ahead: Ahead, call: Decision) -> Decision:
        """`call` with one call of `who` spent, or refused.

        The further ones are spent with it, as many as are left; none under a limit of
        tokens, which would be kept too late.
        """
        if ahead.unused:
            await self._calls.spend(who, rates.calls, -ahead.unused)
        call = replace(call, token_rate_limit=await self._left(who, rates))
        if call.token_rate_limit and not call.token_rate_limit.remaining:
            _, state = await self._calls.spend(who, rates.calls, 0)
            return replace(call, verdict=Verdict.TOKENS_LIMITED, rate_limit=state)
        allowed, state = await self._calls.spend(who, rates.calls)
        if not allowed:
            return replace(call, verdict=Verdict.RATE_LIMITED, rate_limit=state)
        further = min(ahead.further, state.remaining) if rates.tokens is None else 0
        if further:
            _, state = await self._calls.spend(who, rates.calls, further)
        return replace(call, rate_limit=state, further_calls=further)

    async def look(self, who: UUID, rates: Rates, call: Decision) -> Decision:
        """`call` with the state of the limits, of which nothing is spent."""
        _, state = await self._calls.spend(who, rates.calls, 0)
        return replace(call, rate_limit=state, token_rate_limit=await self._left(who, rates))

    async def take(self, spent: Iterable[Spent]) -> None:
        """Takes tokens from those who have a limit of them. Raises Unavailable."""
        keys, accounts = Counter[UUID](), Counter[UUID]()
        for each in spent:
            (keys if each.is_key else accounts)[each.who] += each.tokens
        limits = await self._of_keys(keys) if keys else {}
        for key_id, limit in limits.items():
            await self._tokens.spend(key_id, limit, keys[key_id], into_debt=True)
        if self.of_accounts.tokens is not None:
            for user_id, tokens in accounts.items():
                await self._tokens.spend(user_id, self.of_accounts.tokens, tokens, into_debt=True)

    async def _left(self, who: UUID, rates: Rates) -> RateLimit | None:
        """The state of the limit of tokens, or None where there is none."""
        if rates.tokens is None:
            return None
        _, state = await self._tokens.spend(who, rates.tokens, 0)
        return state
