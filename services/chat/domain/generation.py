"""A generation: one request to a model and all that came of it, as one event sequence.

Whoever asked, and anybody else, follows it from any place. Events are numbered
from 1; each part of the text is one, and the ending is the last.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from mesh import errors
from services.chat.domain.models import Model


class Status(StrEnum):
    """How a generation ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a generation; estimated from the text when the provider did not count."""

    prompt: int
    completion: int
    estimated: bool

    @property
    def total(self) -> int:
        """Tokens read and written."""
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended. `error` is set when it failed, and is what its readers see."""

    status: Status
    text: str
    model: str
    finish_reason: str
    tokens: Tokens
    error: errors.MeshError | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """Text to append; `seq` is the place of its last part, `raw` what a relay sends for it."""

    seq: int
    text: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Last:
    """The ending, and its place."""

    seq: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing happened for a while; not an event, and without a place."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a generation, by what request, when, and where it is kept."""

    user_id: UUID
    key_id: UUID | None
    request_id: str
    created_at: datetime
    chat_id: UUID | None


@dataclass(slots=True, eq=False)
class Generation:
    """One that is running, or has just ended."""

    id: UUID
    model: Model
    origin: Origin
    _parts: list[str] = field(default_factory=list)
    _raws: list[bytes] = field(default_factory=list)
    _ending: Ending | None = None
    _waiting: set[asyncio.Future[bool]] = field(default_factory=set)
    # Set by whoever runs it.
    cancel: Callable[[], None] = lambda: None

    def append(self, text: str, raw: bytes = b"") -> None:
        """Adds a part."""
        self._parts.append(text)
        self._raws.append(raw)
        self._wake()

    def end(self, ending: Ending) -> None:
        """Ends it, once."""
        if self._ending is not None:
            raise RuntimeError(f"generation {self.id} has ended already")
        self._ending = ending
        self._wake()

    @property
    def text(self) -> str:
        """What was written until now."""
        return "".join(self._parts)

    async def follow(
        self, after: int = 0, *, silence: float | None = None
    ) -> AsyncGenerator[Delta | Last | Silence]:
        """Events past number `after`, the last of them `Last`.

        Parts that are there together come as one event, so a reader that is slow
        gets fewer, larger ones, and no reader waits for another. After each
        `silence` seconds without an event comes Silence.
        """
        while True:
            count = len(self._parts)
            if after < count:
                text, raw = "".join(self._parts[after:]), b"".join(self._raws[after:])
                after = count
                yield Delta(after, text, raw)
            elif self._ending is not None:
                yield Last(after + 1, self._ending)
                return
            else:
                changed = await self._change(silence)
                if not changed:
                    yield Silence()

    async def ended(self) -> Ending:
        """The ending, when it is there."""
        while self._ending is None:
            await self._change()
        return self._ending

    async def _change(self, within: float | None = None) -> bool:
        """Whether something changed `within` seconds; waits as long as it takes without."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = None if within is None else loop.call_later(within, _tell, waiter, False)
        self._waiting.add(waiter)
        try:
            return bool(await waiter)
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        for waiter in self._waiting:
            _tell(waiter, changed=True)


def _tell(waiter: asyncio.Future[bool], changed: bool) -> None:
    if not waiter.done():
        waiter.set_result(changed)
