"""What a generation used, and what that costs."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

_TOKENS_PRICED = 1_000_000
_NANOS = 1_000_000_000
# What the contract can tell of one generation, and what it may cost: a million
# USD. A balance can hold 9.2 billion.
MOST_TOKENS = 2**31 - 1
MOST_NANO_USD = 10**15


@dataclass(frozen=True, slots=True)
class Record:
    """What one generation used and cost, in nano-USD; prices are of a million tokens."""

    generation_id: UUID
    request_id: str
    user_id: UUID
    key_id: UUID | None
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    prompt_price: int
    completion_price: int
    cost: int
    status: str
    basis: str
    latency_ms: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Whose:
    """The records meant: all of an account, or those of one of its keys."""

    user_id: UUID
    key_id: UUID | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over records; `cost` is in nano-USD. All exact."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The totals of a time, both of its ends included, and of groups by their names."""

    totals: Totals
    groups: dict[str, Totals]
    start: datetime
    end: datetime


def cost(
    prompt_tokens: int, completion_tokens: int, prompt_price: int, completion_price: int
) -> int:
    """What the tokens cost in nano-USD, rounded once, half up."""
    exact = prompt_tokens * prompt_price + completion_tokens * completion_price
    return (exact + _TOKENS_PRICED // 2) // _TOKENS_PRICED


def usd(nano_usd: int) -> float:
    """The nearest double, for readers who want dollars: never to calculate with."""
    return nano_usd / _NANOS
