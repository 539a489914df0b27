"""What a key is, and what it may do."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID


class Verdict(enum.Enum):
    """What becomes of a call; named as in the contract."""

    ALLOWED = enum.auto()
    UNKNOWN = enum.auto()
    REVOKED = enum.auto()
    EXPIRED = enum.auto()
    MODEL_NOT_ALLOWED = enum.auto()
    RATE_LIMITED = enum.auto()


@dataclass(frozen=True, slots=True)
class Draft:
    """What an owner says of a key. Without a limit it gets the installation's default."""

    name: str
    rate_limit_per_minute: int | None
    allowed_models: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as stored. `digest` stands for its secret, which nobody has but its holder."""

    id: UUID
    owner_id: UUID
    name: str
    key_prefix: str
    digest: bytes = field(repr=False)
    rate_limit_per_minute: int
    allowed_models: tuple[str, ...]
    expires_at: datetime | None
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def standing(self, now: datetime) -> Verdict:
        """ALLOWED, REVOKED or EXPIRED."""
        if self.revoked_at is not None:
            return Verdict.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return Verdict.EXPIRED
        return Verdict.ALLOWED

    def may_call(self, names: Sequence[str]) -> bool:
        """Whether it may call the model that goes by `names`: its id and its aliases."""
        return not self.allowed_models or not set(names).isdisjoint(self.allowed_models)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """State of a per-minute limit. Seconds are rounded up.

    `retry_after` is 0 while calls are left; after `reset` all of them are.
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
class Decision:
    """Who calls, as far as known, and whether they may. Calls to no model have no limit."""

    verdict: Verdict
    user_id: UUID | None = None
    key_id: UUID | None = None
    rate_limit: RateLimit | None = None
    further_calls: int = 0
