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


# Tokens that may have prices of their own; those of the prompt, and those of the completion.
KINDS = ("cached_read", "cached_write", "reasoning", "audio_prompt", "audio_completion")
_OF_PROMPT = (0, 1, 3)
_OF_COMPLETION = (2, 4)
NO_KINDS = (0,) * len(KINDS)

# Nano-USD for a million tokens of each kind; None costs as plain text does.
KindPrices = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """What one generation used and cost, in nano-USD; prices are of a million tokens.

    Tokens of a kind are among those of the prompt, or of the completion; each has one kind, or
    is plain text.
    """

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
    cached_read_tokens: int = 0
    cached_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_prompt_tokens: int = 0
    audio_completion_tokens: int = 0
    kind_prices: KindPrices | None = None

    @property
    def kinds(self) -> tuple[int, ...]:
        """Tokens of each kind, in the order of KINDS."""
        return (
            self.cached_read_tokens,
            self.cached_write_tokens,
            self.reasoning_tokens,
            self.audio_prompt_tokens,
            self.audio_completion_tokens,
        )


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
    kinds: tuple[int, ...] = NO_KINDS


@dataclass(frozen=True, slots=True)
class Summary:
    """The totals of a time, both of its ends included, and of groups by their names."""

    totals: Totals
    groups: dict[str, Totals]
    start: datetime
    end: datetime


def cost(
    prompt_tokens: int,
    completion_tokens: int,
    prompt_price: int,
    completion_price: int,
    kinds: tuple[int, ...] = NO_KINDS,
    kind_prices: KindPrices | None = None,
) -> int:
    """What the tokens cost in nano-USD, rounded once, half up."""
    exact = prompt_tokens * prompt_price + completion_tokens * completion_price
    if kind_prices is not None:
        for price, of in ((prompt_price, _OF_PROMPT), (completion_price, _OF_COMPLETION)):
            for kind in of:
                own = kind_prices[kind]
                exact += kinds[kind] * (own - price) if own is not None else 0
    return (exact + _TOKENS_PRICED // 2) // _TOKENS_PRICED


def usd(nano_usd: int) -> float:
    """The nearest double, for readers who want dollars: never to calculate with."""
    return nano_usd / _NANOS
