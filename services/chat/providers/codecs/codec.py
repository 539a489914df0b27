"""What a wire format has to do, so that `transport` can speak it."""

from collections.abc import Iterator
from typing import Protocol

from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.providers.codecs.failure import Failure


class BrokeOff(Exception):
    """An answer ended before its end, or is not of this format."""


class TooLarge(Exception):
    """An answer is longer than any may be."""


class Decoder(Protocol):
    """Takes apart one answer, fed as its bytes arrive. How they are cut makes no difference."""

    @property
    def done(self) -> bool:
        """Whether nothing more need be fed."""
        ...

    @property
    def is_whole(self) -> bool:
        """Whether it may end here, so that a connection that breaks from now on breaks nothing off."""
        ...

    def feed(self, data: bytes) -> Part | None:
        """What is in `data`, joined, or None."""
        ...

    def end(self) -> Iterator[Part | Report]:
        """What is left when no more bytes come, the last of it the Report.

        Raises Failed for an error that the provider told in its answer, BrokeOff, and TooLarge.
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

    def decoder(self, prompt: Prompt | Relay) -> Decoder:
        """Reads what is answered to `prompt` with status 200."""
        ...

    def failure(self, status: int, body: bytes) -> Failure:
        """What an answer with another status says."""
        ...
