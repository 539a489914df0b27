"""A generation: one request to a model and all that came of it, as one event sequence.

Whoever asked, and anybody else, follows it from any place. Events are numbered
from 1; each part of the text is one, and the ending is the last.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from mesh import errors
from services.chat.domain.tokens import Tokens

# A part: text, and what a relay sends for it.
Piece = tuple[str, bytes]


# Characters, each of up to 4 bytes, and bytes: a message of gRPC has 4 MiB at most by default.
_LONGEST_DELTA = 200_000
# What is kept in memory of parts that are written down: whoever is further behind reads them
# from there.
_WINDOW_BYTES = 256 << 10
# What a part takes besides its text and bytes, about.
_OF_A_PART_BYTES = 100

# Why a generation was cancelled: somebody wanted that, or who waited went away.
CANCELLED = "GENERATION_CANCELLED"
CLIENT_LEFT = "CLIENT_LEFT"
# Why one broke off: its process died, or stood still as if it had.
INTERRUPTED = "INTERRUPTED"


class Status(StrEnum):
    """Where a generation is: waiting for a worker, running, or how it ended."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing can come any more."""
        return self not in (Status.PENDING, Status.RUNNING)


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended. `model` is as its provider names it.

    `error` is set when it failed, and is what its readers see; `reason` says why
    it failed or was cancelled.
    """

    status: Status
    reason: str
    model: str
    finish_reason: str
    tokens: Tokens
    error: errors.MeshError | None = None

    def check(self) -> None:
        """Raises what who waited for the whole reply is told instead of it, if anything."""
        if self.error is not None:
            raise self.error
        if self.status is Status.CANCELLED:
            raise errors.Aborted(self.reason, "the generation was cancelled")


def interrupted() -> errors.Unavailable:
    """The error of a generation whose process died, or stood still as if it had."""
    return errors.Unavailable(INTERRUPTED, "the process that wrote the reply died", retry_after=1)


# One is made for each token and reader: a struct costs a seventh of a frozen dataclass.
class Delta(msgspec.Struct, frozen=True):
    """Text to append; `seq` is the place of its last part, `raw` what a relay sends for it."""

    seq: int
    text: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Restarted:
    """What was written before place `seq` does not count: another process writes anew."""

    seq: int


@dataclass(frozen=True, slots=True)
class Last:
    """The ending, and its place."""

    seq: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing happened for a while since place `seq`; not an event."""

    seq: int


@dataclass(frozen=True, slots=True)
class OutOfTime:
    """Its reader has no more time; not an event, and nothing comes after it."""


Event = Delta | Restarted | Last | Silence | OutOfTime


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for a generation, by what request, when, and where it is kept."""

    user_id: UUID
    key_id: UUID | None
    request_id: str
    created_at: datetime
    chat_id: UUID | None


# Parts of a generation that are written down, from the one after a place: some of them, or none.
Earlier = Callable[["Generation", int], Awaitable[Sequence[Piece]]]


@dataclass(slots=True, eq=False)
class Generation:
    """The events of one that runs, here or elsewhere, or has ended.

    `base` is the place after which its parts begin: more than 0 once it was restarted. Parts
    that are written down can be read by `earlier`, and need not stay in memory then.
    """

    id: UUID
    origin: Origin
    base: int = 0
    earlier: Earlier | None = None
    # What its reader is to be told beside it.
    warning: str = ""
    ending: Ending | None = None
    _parts: list[str] = field(default_factory=list)
    _raws: list[bytes] = field(default_factory=list)
    # Of parts that are not in memory any more: how many, and their text.
    _dropped: int = 0
    _text_dropped: list[str] = field(default_factory=list)
    _size: int = 0
    _waiting: set[asyncio.Future[bool]] = field(default_factory=set)

    def append(self, text: str, raw: bytes = b"") -> None:
        """Adds a part."""
        self._parts.append(text)
        self._raws.append(raw)
        self._size += len(text) + len(raw) + _OF_A_PART_BYTES
        self._wake()

    def extend(self, pieces: Sequence[Piece]) -> None:
        """Adds parts that were there together."""
        self._parts += [text for text, _ in pieces]
        self._raws += [raw for _, raw in pieces]
        self._size += _size_of(pieces)
        self._wake()

    def cut(self, after: int) -> None:
        """Drops the parts past place `after`."""
        self._size -= _size_of(self.pieces(after))
        first = max(after - self._first, 0)
        del self._parts[first:], self._raws[first:]

    def replace(self, after: int, pieces: Sequence[Piece]) -> None:
        """Puts `pieces` in the place of the parts past `after`; those not in memory are the same."""
        first = max(after, self._first)
        self.cut(first)
        self.extend(pieces[first - after :])

    def restart(self, base: int) -> None:
        """Drops all parts: those to come begin after place `base`."""
        self.base, self._parts, self._raws = base, [], []
        self._dropped, self._text_dropped, self._size = 0, [], 0
        self._wake()

    def trim(self, written: int) -> None:
        """Drops the oldest parts up to place `written`, but for 256 KiB of all, where they can be read."""
        if self.earlier is None or self._size <= 2 * _WINDOW_BYTES:
            return
        count = 0
        for text, raw in zip(self._parts, self._raws, strict=True):
            if self._first + count >= written or self._size <= _WINDOW_BYTES:
                break
            self._size -= len(text) + len(raw) + _OF_A_PART_BYTES
            count += 1
        self._text_dropped.append("".join(self._parts[:count]))
        del self._parts[:count], self._raws[:count]
        self._dropped += count

    def end(self, ending: Ending) -> None:
        """Ends it, once."""
        if self.ending is not None:
            raise RuntimeError(f"generation {self.id} has ended already")
        self.ending = ending
        self._wake()

    @property
    def text(self) -> str:
        """What was written until now."""
        return "".join((*self._text_dropped, *self._parts))

    @property
    def seq(self) -> int:
        """The place of its last part."""
        return self._first + len(self._parts)

    @property
    def _first(self) -> int:
        """The place after which the parts begin that are in memory."""
        return self.base + self._dropped

    def pieces(self, after: int) -> list[Piece]:
        """The parts past place `after`, as far as they are in memory."""
        first = max(after - self._first, 0)
        return list(zip(self._parts[first:], self._raws[first:], strict=True))

    async def follow(
        self,
        after: int = 0,
        *,
        silence: float = math.inf,
        first: float | None = None,
        until: float = math.inf,
    ) -> AsyncGenerator[Event]:
        """Events past number `after`, the last of them `Last`, or OutOfTime.

        Parts that are there together come as one event, as far as a message holds them,
        so a reader that is slow gets fewer, larger ones, and no reader waits for another. After each
        `silence` seconds without an event comes Silence; before the first event after `first`
        seconds, where that is said. `until` is of the event loop's clock.
        """
        clock = asyncio.get_running_loop().time
        wait = silence if first is None else first
        while True:
            if clock() >= until:
                yield OutOfTime()
                return
            if after < self.base:
                after = self.base
                yield Restarted(after)
            elif after < self._first:
                pieces = await self._read(after)
                after += len(pieces)
                if pieces:
                    texts, raws = zip(*pieces, strict=True)
                    yield Delta(after, "".join(texts), b"".join(raws))
            elif after < self.seq:
                first = after - self._first
                last = self._fitting(first)
                after = self._first + last
                text, raw = self._parts[first:last], self._raws[first:last]
                yield Delta(after, "".join(text), b"".join(raw))
            elif self.ending is not None:
                # A reader may have more than a process that died had written down.
                read = after if self.ending.reason == INTERRUPTED else 0
                yield Last(max(self.seq, read) + 1, self.ending)
                return
            else:
                left = until - clock()
                if await self._change(min(wait, left)) or left <= wait:
                    continue
                yield Silence(after)
            wait = silence

    async def _read(self, after: int) -> Sequence[Piece]:
        """Some of the parts past place `after` that are not in memory, and no others."""
        base = self.base
        read = await self.earlier(self, after) if self.earlier is not None else ()
        if self.base != base:
            return ()
        # What can't be read any more was erased, with its chat.
        pieces = read or [("", b"")] * (self._first - after)
        return pieces[: self._first - after]

    def _fitting(self, first: int) -> int:
        """Where the parts end that go into one event from the one at `first`; it goes in any case."""
        size = 0
        for at in range(first, len(self._parts)):
            size += len(self._parts[at]) + len(self._raws[at])
            if size > _LONGEST_DELTA and at > first:
                return at
        return len(self._parts)

    async def ended(self, within: float | None = None) -> Ending:
        """The ending, when it is there. Raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while self.ending is None:
                await self._change()
        return self.ending

    async def _change(self, within: float = math.inf) -> bool:
        """Whether something changed `within` seconds; waits as long as it takes without."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        timer = None if within == math.inf else loop.call_later(within, _tell, waiter, False)
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


def _size_of(pieces: Sequence[Piece]) -> int:
    return sum(len(text) + len(raw) + _OF_A_PART_BYTES for text, raw in pieces)


def _tell(waiter: asyncio.Future[bool], changed: bool) -> None:
    if not waiter.done():
        waiter.set_result(changed)
