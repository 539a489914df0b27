"""What a provider of models is, whatever it is spoken to by."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from mesh import errors
from services.chat.domain.completion import Completion
from services.chat.domain.conversation import Turn
from services.chat.domain.models import Model


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is, our key there ("" for none), and how its keys begin."""

    name: str
    url: str
    key: str = field(repr=False)
    key_prefix: str


class Unreached(errors.Unavailable):
    """The provider never got the prompt: nothing was used there."""


# The caller's own key of the provider, used for one call and kept nowhere.
OwnKey = str | None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider is asked. `max_tokens` is always sent, so that costs are bounded."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None
    key: OwnKey = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Characters to read."""
        return sum(len(turn.content) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class Relay:
    """A request in OpenAI's format, to be passed on and answered byte by byte."""

    id: UUID
    model: str
    completion: Completion
    created_at: datetime
    key: OwnKey = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Characters to read, about."""
        return len(bytes(self.completion.fields["messages"]))


@dataclass(frozen=True, slots=True)
class Answering:
    """Comes before the first part: the model that answers, which may not be the one asked."""

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
