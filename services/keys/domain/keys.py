"""What a key is, and what it may do."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

_NANOS = 1_000_000_000
# Of a secret's digest: enough to tell the secrets of one key apart.
_SECRET_ID_BYTES = 8


class Verdict(enum.Enum):
    """What becomes of a call; named as in the contract."""

    ALLOWED = enum.auto()
    UNKNOWN = enum.auto()
    REVOKED = enum.auto()
    EXPIRED = enum.auto()
    MODEL_NOT_ALLOWED = enum.auto()
    RATE_LIMITED = enum.auto()
    TOKENS_LIMITED = enum.auto()


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may spend, in nano-USD, by calendar month and ever; and when to warn, by month.

    Usage enforces it: here it is a setting.
    """

    monthly: int | None = None
    total: int | None = None
    soft: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """What an owner says of a key. Without a limit of calls it gets the installation's default."""

    name: str
    rate_limit_per_minute: int | None
    allowed_models: tuple[str, ...]
    expires_at: datetime | None
    token_limit_per_minute: int | None
    monthly_budget: int | None
    total_budget: int | None
    soft_budget: int | None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as stored. `digest` stands for its secret, which nobody has but its holder.

    `previous_digest` stands for the secret before the last rotation.
    """

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
    token_limit_per_minute: int | None = None
    monthly_budget: int | None = None
    total_budget: int | None = None
    soft_budget: int | None = None
    previous_digest: bytes | None = field(default=None, repr=False)
    previous_expires_at: datetime | None = None

    @property
    def digests(self) -> tuple[bytes, ...]:
        """What stands for its secrets, that of now first."""
        return (self.digest, self.previous_digest) if self.previous_digest else (self.digest,)

    @property
    def budget(self) -> Budget | None:
        """What it may spend, or None when nothing limits that."""
        found = Budget(self.monthly_budget, self.total_budget, self.soft_budget)
        return None if found == Budget() else found

    def standing(self, now: datetime) -> Verdict:
        """ALLOWED, REVOKED or EXPIRED."""
        if self.revoked_at is not None:
            return Verdict.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return Verdict.EXPIRED
        return Verdict.ALLOWED

    def standing_of(self, digest: bytes, now: datetime) -> Verdict:
        """The standing of one of its secrets: the previous one has an end of its own."""
        standing, end = self.standing(now), self.previous_expires_at
        if standing is not Verdict.ALLOWED or digest == self.digest:
            return standing
        is_over = digest != self.previous_digest or end is None or end <= now
        return Verdict.EXPIRED if is_over else standing

    def secret_id(self, digest: bytes) -> str:
        """What one of its secrets is called, for `standing_by`."""
        return digest[:_SECRET_ID_BYTES].hex()

    def standing_by(self, secret_id: str, now: datetime) -> Verdict:
        """The standing of the secret of this name; of the key itself when that is "".

        A secret before the previous one is EXPIRED.
        """
        if not secret_id:
            return self.standing(now)
        named = (each for each in self.digests if self.secret_id(each) == secret_id)
        return self.standing_of(next(named, b""), now)

    def may_call(self, names: Sequence[str]) -> bool:
        """Whether it may call the model that goes by `names`: its id and its aliases."""
        return not self.allowed_models or not set(names).isdisjoint(self.allowed_models)


def nano_usd(usd: float) -> int:
    """Dollars as a sum to calculate with, rounded to the nearest billionth."""
    return round(usd * _NANOS)


def usd(nano_usd: int) -> float:
    """The nearest double, for readers who want dollars."""
    return nano_usd / _NANOS
