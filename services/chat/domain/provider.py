"""What a provider of models is, whatever it is spoken to by."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from services.chat.domain.conversation import Turn


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider is asked. `max_tokens` is always sent, so that costs are bounded."""

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None


@dataclass(frozen=True, slots=True)
class Part:
    """Text that arrived together, in so many pieces of about a token each."""

    text: str
    pieces: int


@dataclass(frozen=True, slots=True)
class Report:
    """How the provider says it ended. `tokens` is (read, written), where it counted."""

    finish_reason: str
    model: str
    tokens: tuple[int, int] | None


class Provider(Protocol):
    """Someone who answers prompts."""

    def stream(self, prompt: Prompt) -> AsyncGenerator[Part | Report]:
        """Parts as they arrive, then one Report.

        Raises the MeshError that the caller is to see, its reason one of the
        contract's `PROVIDER_…`. Closing it closes the provider's connection.
        """
        ...
