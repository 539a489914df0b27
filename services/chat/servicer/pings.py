"""When a stream says that it is alive: models may think for minutes, and a silent stream is cut."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from mesh.calls import call
from mesh.time_limits import EARLY_HEADERS_AFTER_S, PING_INTERVAL_S
from services.chat.domain.generation import Event, Generation

_EARLY = "x-early-headers"
# What a stream whose time is over has to say so.
_LAST_WORDS_S = 0.1


@dataclass(frozen=True, slots=True)
class Pings:
    """Seconds until a stream says for the first time that it is alive, and from then on.

    With the first ping the headers go out: what fails after it is the stream's last event.
    """

    headers_after: float = EARLY_HEADERS_AFTER_S
    interval: float = PING_INTERVAL_S

    @property
    def first(self) -> float:
        """Seconds until the first ping of this call: 0 where its caller wants headers at once."""
        wanted = call.current().metadata.get(_EARLY, "").strip().lower()
        return 0.0 if wanted in ("true", "1") else self.headers_after

    def follow(self, generation: Generation) -> AsyncGenerator[Event]:
        """All events of `generation` for the caller of now, with Silence where a ping is due."""
        return generation.follow(silence=self.interval, first=self.first, until=until())


def until() -> float:
    """When the stream of now has to end by itself, of the event loop's clock."""
    return call.current().deadline - _LAST_WORDS_S


def as_comments() -> None:
    """Lets the edge make comments of the pings of this stream, where it makes events of all."""
    now = call.current()
    if now.transcoded:
        now.headers.append(("khesht-pings", "comments"))
