"""What a session is, and what a refresh token does to it."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

# An answer may be lost on its way. Whoever asks again this soon gets the same one.
GRACE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Client:
    """Who logs in, as far as the network tells: either may be ""."""

    address: str
    user_agent: str


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `last_used_at` is when it was last refreshed, or began."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    user_agent: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a session is used by. `expires_in` is in seconds, of the access token."""

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)


class Refresh(enum.Enum):
    """What the use of a refresh token comes to."""

    NEXT = "it is the last one given: it is spent by this"
    AGAIN = "it was spent a moment ago: its successor is given once more"
    REUSED = "it was spent long ago: two parties have it, and one is a thief"


def judge(given: int, current: int, last_used_at: datetime, now: datetime) -> Refresh:
    """What using the `given`-th token of a session means when it is at its `current`-th.

    Follows RFC 9700, section 4.14.2, but for the grace.
    """
    if given == current:
        return Refresh.NEXT
    if given == current - 1 and now - last_used_at <= GRACE:
        return Refresh.AGAIN
    return Refresh.REUSED
