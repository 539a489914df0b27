"""Tokens of a generation: how many of which kind, who counted them, and what a kind costs."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from operator import attrgetter

import msgspec


class Basis(StrEnum):
    """Who counted the tokens.

    The provider; we by the text, at least of what came after it counted last; we by what a
    dead process left; or the provider, but more than the request and its limit allow, so
    that what they allow is charged.
    """

    PROVIDER = "provider"
    ESTIMATED = "estimated"
    CRASH = "crash"
    CAPPED = "capped"


@dataclass(frozen=True, slots=True)
class TokenKinds:
    """Those of the tokens that may have prices of their own; all else is plain text.

    The first two and `audio_prompt` are among the tokens read, the others among those written.
    """

    cached_read: int = 0
    cached_write: int = 0
    reasoning: int = 0
    audio_prompt: int = 0
    audio_completion: int = 0

    def within(self, prompt: int, completion: int) -> "TokenKinds":
        """The same, no more of them together than there are tokens."""
        cached_read = min(self.cached_read, prompt)
        cached_write = min(self.cached_write, prompt - cached_read)
        reasoning = min(self.reasoning, completion)
        return TokenKinds(
            cached_read,
            cached_write,
            reasoning,
            min(self.audio_prompt, prompt - cached_read - cached_write),
            min(self.audio_completion, completion - reasoning),
        )

    def encode(self) -> str | None:
        """JSON; None when all tokens are plain text."""
        return None if self == NO_KINDS else msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | None) -> "TokenKinds":
        """Those that were encoded."""
        return _kinds.decode(text) if text else NO_KINDS


NO_KINDS = TokenKinds()
KINDS = tuple(field.name for field in fields(TokenKinds))
_kinds = msgspec.json.Decoder(TokenKinds)


@dataclass(frozen=True, slots=True)
class KindPrices:
    """Nano-USD for a million tokens of each kind; None costs as the prompt or the reply does."""

    cached_read: int | None = None
    cached_write: int | None = None
    reasoning: int | None = None
    audio_prompt: int | None = None
    audio_completion: int | None = None

    def encode(self) -> str | None:
        """JSON; None when no kind has a price of its own."""
        return None if self == NO_KIND_PRICES else msgspec.json.encode(self).decode()

    @classmethod
    def decode(cls, text: str | None) -> "KindPrices":
        """Those that were encoded."""
        return _prices.decode(text) if text else NO_KIND_PRICES


NO_KIND_PRICES = KindPrices()
_prices = msgspec.json.Decoder(KindPrices)
_audio = attrgetter("audio_prompt", "audio_completion")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens read (`prompt`) and written (`completion`), and the kinds among them."""

    prompt: int
    completion: int
    basis: Basis
    kinds: TokenKinds = NO_KINDS

    @property
    def total(self) -> int:
        """Tokens read and written."""
        return self.prompt + self.completion

    def plus(self, other: "Tokens", basis: Basis) -> "Tokens":
        """Both together."""
        mine, others = self.kinds, other.kinds
        sums = (getattr(mine, kind) + getattr(others, kind) for kind in KINDS)
        return Tokens(
            self.prompt + other.prompt,
            self.completion + other.completion,
            basis,
            NO_KINDS if mine is others is NO_KINDS else TokenKinds(*sums),
        )


@dataclass(frozen=True, slots=True)
class TokenBounds:
    """The most tokens that a request can have read, and its limit lets be written."""

    prompt: int
    completion: int
    audio: bool = False

    def believed(self, counted: Tokens) -> Tokens:
        """What of `counted` can be so: `counted` itself, or less with the basis CAPPED."""
        kinds = counted.kinds
        if not self.audio and any(_audio(kinds)):
            kinds = replace(kinds, audio_prompt=0, audio_completion=0)
        if counted.prompt <= self.prompt and counted.completion <= self.completion:
            return counted if kinds is counted.kinds else replace(counted, kinds=kinds)
        prompt = min(counted.prompt, self.prompt)
        completion = min(counted.completion, self.completion)
        return Tokens(prompt, completion, Basis.CAPPED, kinds.within(prompt, completion))


def estimated(prompt: int, completion: int, basis: Basis) -> Tokens:
    """Tokens that nobody counted: where nothing was written, nothing is charged."""
    return Tokens(prompt if completion else 0, completion, basis)
