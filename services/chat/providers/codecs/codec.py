"""What a wire format has to do, so that `transport` can speak it."""

from collections.abc import Iterator
from typing import Protocol

from services.chat.domain.provider import Part, Prompt, Relay, Report


class Decoder(Protocol):
    """Takes apart one answer, fed as its bytes arrive."""

    @property
    def done(self) -> bool:
        """Whether all was said, so that nothing more need be fed."""
        ...

    def feed(self, data: bytes) -> Part | None:
        """What is in `data`, joined, or None."""
        ...

    def end(self) -> Iterator[Part | Report]:
        """What is left when no more bytes come, the last of it the Report.

        Raises the MeshError of an answer that broke off, or can't be used.
        """
        ...


class Codec(Protocol):
    """One wire format."""

    @property
    def path(self) -> str:
        """Where requests go, behind a provider's URL."""
        ...

    def encode(self, prompt: Prompt | Relay) -> bytes:
        """The body of a request."""
        ...

    def decoder(self, provider: str, prompt: Prompt | Relay) -> Decoder:
        """Reads what the provider of this name answers to `prompt`."""
        ...
