"""What an account is."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

ADMIN = "admin"
USER = "user"


@dataclass(frozen=True, slots=True)
class User:
    """An account as its owner sees it."""

    id: UUID
    username: str | None
    email: str
    role: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """An account with the hash of its password, and when that was last set."""

    user: User
    password_hash: str = field(repr=False)
    password_changed_at: datetime
