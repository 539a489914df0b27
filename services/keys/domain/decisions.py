"""What is decided about a call, and what those who enforce the rest are told."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from services.keys.domain.keys import Budget, Verdict


@dataclass(frozen=True, slots=True)
class RateLimit:
    """State of a per-minute limit of calls or of tokens. Seconds are rounded up.

    `retry_after` is 0 while some are left; after `reset` all of them are.
    """

    limit: int
    remaining: int
    retry_after: int
    reset: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """Calls that an asker wants to spend with one, and those it spent before and did not make."""

    further: int = 0
    unused: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """An account, and the providers for which it has stored a credential, sorted."""

    id: UUID
    providers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """Who calls, as far as known, and whether they may. Calls to no model have no limit."""

    verdict: Verdict
    user_id: UUID | None = None
    key_id: UUID | None = None
    rate_limit: RateLimit | None = None
    token_rate_limit: RateLimit | None = None
    further_calls: int = 0
    budget: Budget | None = None
    token_limit: int | None = None
    allowed_models: Collection[str] = ()
    credential_providers: Collection[str] = ()
    secret_id: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens that a key, or an account by access token, has used."""

    who: UUID
    is_key: bool
    tokens: int
