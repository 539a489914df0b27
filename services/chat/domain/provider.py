"""What a provider of models is, whatever it is spoken to by."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from mesh import errors
from services.chat.domain.completion import Completion
from services.chat.domain.conversation import Turn
from services.chat.domain.models import Model


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, until an answer begins, between two parts of it, and for all of it."""

    connect: float = 3.0
    first_byte: float = 30.0
    idle: float = 30.0
    total: float = 570.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is asked of a provider.

    At most `concurrency` calls at once; a call that it did nothing with is repeated
    up to `retries` times. After `breaker_failures` in a row it is left alone for
    `breaker_pause` seconds.
    """

    concurrency: int = 1_000
    retries: int = 1
    breaker_failures: int = 5
    breaker_pause: float = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is, our key there ("" for none), how its keys begin, and how it is used.

    `private` says that its name may stand for an address in a private network.
    """

    name: str
    url: str
    key: str = field(repr=False)
    key_prefix: str = ""
    needs_key: bool = True
    private: bool = False
    timeouts: Timeouts = Timeouts()
    bounds: Bounds = Bounds()

    @property
    def usable(self) -> bool:
        """Whether it can be called without a caller's own key."""
        return bool(self.key) or not self.needs_key


class Unreached(errors.MeshError):
    """No provider got the prompt: nothing was used anywhere."""


class Unreachable(Unreached, errors.Unavailable):
    """The provider can't be reached, or is not asked now."""


class UnreachedInTime(Unreached, errors.DeadlineExceeded):
    """The provider did not take the connection in time."""


class Declined(errors.Unavailable):
    """The provider answered nothing of the prompt, and may do so a moment later."""


_AROUND_A_TURN = 8
_IMAGE = b'"image_url":'
# The most that a provider counts for one, of a small model (OpenAI, 2026).
_OF_AN_IMAGE = 50_000

# The caller's own key of the provider, used for one call and kept nowhere.
OwnKey = str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider is asked. `max_tokens` is always sent, so that costs are bounded.

    Where `allowed` has any, only models of these ids or aliases may stand in.
    """

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None
    key: OwnKey = field(default=None, repr=False)
    allowed: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Characters to read."""
        return sum(len(turn.content) for turn in self.turns)

    @property
    def bound(self) -> int:
        """Tokens to read, at most: each has a byte or more, and turns a few around them."""
        return sum(len(turn.content.encode()) + _AROUND_A_TURN for turn in self.turns)

    def most_tokens(self, allowed: int) -> int:
        """Tokens to write, at most, by a model that writes no more than `allowed`."""
        return min(self.max_tokens, allowed)

    @property
    def whole(self) -> bool:
        """Whether the provider says nothing before it has all of its answer."""
        return False

    def to(self, model: Model) -> "Prompt":
        """The same, to be asked of `model`."""
        most = min(self.max_tokens, model.max_output_tokens)
        return replace(self, model=model.upstream or model.id, max_tokens=most)


@dataclass(frozen=True, slots=True)
class Relay:
    """A request in OpenAI's format, to be passed on and answered byte by byte.

    `allowed` is as of a Prompt.
    """

    id: UUID
    model: str
    completion: Completion
    created_at: datetime
    key: OwnKey = field(default=None, repr=False)
    allowed: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Characters to read, about."""
        return len(bytes(self.completion.fields["messages"]))

    @property
    def bound(self) -> int:
        """As of a Prompt; what is not text is more than its bytes tell."""
        sent = sum(len(bytes(field)) for field in self.completion.fields.values())
        return sent + bytes(self.completion.fields["messages"]).count(_IMAGE) * _OF_AN_IMAGE

    def most_tokens(self, allowed: int) -> int:
        """As of a Prompt, of all its choices together."""
        wanted = self.completion.number("max_completion_tokens", "max_tokens")
        return min(wanted or allowed, allowed) * (self.completion.number("n") or 1)

    @property
    def whole(self) -> bool:
        """As of a Prompt."""
        return not self.completion.stream

    def to(self, model: Model) -> "Relay":
        """The same, to be asked of `model`."""
        return replace(self, model=model.upstream or model.id)


@dataclass(frozen=True, slots=True)
class Answering:
    """The model that answers; comes once, before the first part."""

    model: Model


@dataclass(frozen=True, slots=True)
class Part:
    """Text that arrived together, in so many pieces of about a token each.

    Of a Relay, `raw` is what its caller is sent.
    """

    text: str
    pieces: int
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Report:
    """How the provider says it ended. `tokens` is (read, written), where it counted."""

    finish_reason: str
    model: str
    tokens: tuple[int, int] | None


class Provider(Protocol):
    """Someone who answers prompts."""

    def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """Parts as they arrive, then one Report.

        Raises the MeshError that the caller is to see, its reason one of the
        contract's `PROVIDER_…`. Closing it closes the provider's connection.
        """
        ...
