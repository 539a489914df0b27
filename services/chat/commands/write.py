"""Writes generations down, many at a time: when they begin, while they run, when they have ended.

Nothing is written for a single token, and no transaction is open while a model
writes. Endings that come in company wait 10 ms for more: a write costs the same for
one as for ten. An ending alone is written at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Self, TypeVar
from uuid import UUID

import psycopg
import structlog
from sqlalchemy.exc import InternalError, OperationalError

from mesh import errors
from mesh.db import Database
from mesh.failpoints import reach
from mesh.grouped import Grouped
from mesh.lane import Lane
from services.chat.domain.generation import Ending, Generation, Piece
from services.chat.domain.provider import Part
from services.chat.domain.records import Exchange
from services.chat.domain.rows import (
    Closing,
    Consumption,
    Opening,
    Segment,
    consumption,
    pack,
    pack_tail,
)
from services.chat.domain.token_estimate import TokenCounter, estimate, rounded
from services.chat.domain.tokens import Basis, Tokens, estimated
from services.chat.store import generations

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("write")

T = TypeVar("T")

_MOST_AT_ONCE = 200
# 200 MiB in one statement take longer than it may: they would be tried again for ever.
_MOST_BYTES = 8 << 20
_TRY_AGAIN_AFTER = 1.0
# How often endings are tried that hold up others, and one that was set aside with its text.
_TRIES_TOGETHER = 3
_TRIES_ASIDE = 3
_LONGEST_PAUSE = 10.0
# What is noted of a generation whose last parts could not be stored.
TEXT_NOT_STORED = "text-not-stored"
_OPENED_TOGETHER = 0.003
_WRITTEN_TOGETHER = 0.01
_SEGMENT = 0.075
# Of one segment, so that it can be read again by itself.
_LONGEST_SEGMENT_BYTES = 1 << 20
# What one generation, and all of a process, may have in memory that is not written down. Packing
# it for PostgreSQL takes as much again.
MOST_UNWRITTEN_BYTES = 2 << 20
LEAST_UNWRITTEN_BYTES = 128 << 10
_MOST_UNWRITTEN_OF_ALL_BYTES = 16 << 20
_WRITTEN_WITHIN = 10.0
# No fault of a row's, with SQLAlchemy and without.
_PASSING = (OperationalError, InternalError, psycopg.OperationalError, psycopg.InternalError)


@dataclass(slots=True, eq=False)
class Draft:
    """A running generation, what it has used, and how much of it is written down.

    It is `lost` when it was found ended by somebody else, as `ended_as` says, or running
    elsewhere. When that is seen before its own end it is `relieved`: what comes from then on is
    not written down, and stays in memory for those who read it here.
    """

    opening: Opening
    generation: Generation
    seq_written: int = 0
    tokens_written: int = 0
    # Bytes of its parts, about: all that came, and what is not written down.
    size: int = 0
    unwritten: int = 0
    waits: bool = False
    unpackable: bool = False
    relieved: bool = False
    ended: bool = False
    lost: bool = False
    ended_as: Ending | None = None
    _counter: TokenCounter = field(default_factory=TokenCounter)
    # What the provider has counted until now, and what we had counted by then.
    _reported: Tokens | None = None
    _counted_before: int = 0

    def append(self, part: Part) -> bool:
        """Adds what was written, and whether there was anything for readers in it."""
        if not part.text and not part.raw:
            return False
        self.generation.append(part.text, part.raw)
        self.size += len(part.text) + len(part.raw)
        self.unwritten += len(part.text) + len(part.raw)
        return True

    def count(self, part: Part) -> bool:
        """Counts what was written. Returns whether so much came that a look at the sum pays."""
        grown = self._counter.add(part.text)
        if part.beside:
            grown |= self._counter.add(part.beside)
        if part.tokens is not None and part.tokens is not self._reported:
            self.report(part.tokens)
            if part.uncounted:
                self._counted_before -= rounded(estimate(part.uncounted))
        return grown

    def report(self, tokens: Tokens) -> None:
        """Takes what the provider counted for all that was written until now."""
        if tokens is not self._reported:
            self._reported, self._counted_before = tokens, self._counter.tokens

    def forget(self) -> None:
        """Counts from nothing: another model answers in place of one that only thought."""
        self._counter, self._reported, self._counted_before = TokenCounter(), None, 0

    @property
    def tokens(self) -> Tokens:
        """What it has used until now: as far as the provider counted it, and about, from there."""
        counted, reported = self._counter.tokens, self._reported
        if reported is None:
            return estimated(self.opening.prompt_estimate, counted, Basis.ESTIMATED)
        prompt = reported.prompt or self.opening.prompt_estimate
        after = counted - self._counted_before if reported.completion else counted
        if prompt == reported.prompt and after <= 0:
            return reported
        completion = reported.completion + max(after, 0)
        return replace(reported, prompt=prompt, completion=completion, basis=Basis.ESTIMATED)

    @property
    def sure_tokens(self) -> int:
        """How many were written in any case."""
        return self._counter.sure


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """A draft that has ended: how it is closed, given its tail, and what a chat keeps of it."""

    draft: Draft
    close: Callable[[bytes], Closing]
    keep: Callable[[Closing], Exchange | None]
    written: asyncio.Future[None]


# What ends, how that is written down, and what a chat keeps of it.
Made = tuple[End, Closing, Exchange | None]


@dataclass(slots=True)
class Writer:
    """One per process. `told` is called with what usage has to know, once that is stored."""

    database: Database
    # For openings, and for segments and endings: neither waits for the other.
    opener: Lane
    closer: Lane
    told: Callable[[Consumption], None]
    # Whether what runs is written down before it has ended.
    journals: bool = True
    _openings: Grouped[Opening, bool] = field(init=False)
    _ends: asyncio.Queue[End] = field(default_factory=asyncio.Queue)
    _waiting: list[Draft] = field(default_factory=list)
    _something: asyncio.Event = field(default_factory=asyncio.Event)
    # One writes at a time, so that no ending is stored before what came before it.
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Endings that others do not wait for any more, and how many were stored until now.
    _aside: "dict[UUID, asyncio.Task[None]]" = field(default_factory=dict)
    _stored: int = 0

    def __post_init__(self) -> None:
        """Prepares to open in groups."""
        self._openings = Grouped(self._open_all, _MOST_AT_ONCE, _OPENED_TOGETHER)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Self]:
        """Writes meanwhile; at the end it writes what is still waiting, while it can."""
        closer = asyncio.create_task(self._close_all())
        journaler = asyncio.create_task(self._journal_all())
        try:
            yield self
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITTEN_WITHIN):
                    await self._ends.join()
                    await asyncio.gather(*self._aside.values())
            for task in self._aside.values():
                task.cancel()
            closer.cancel()
            journaler.cancel()

    async def open(self, opening: Opening) -> bool:
        """Writes down that a generation begins.

        False when its caller has used its `dedup_key` before. Raises Unavailable.
        """
        return await self._openings.do(opening)

    def note(self, draft: Draft) -> None:
        """Writes down what `draft` has more by now, soon."""
        if not draft.waits and self.journals:
            draft.waits = True
            self._waiting.append(draft)
            self._something.set()

    async def room(self, draft: Draft, running: int) -> None:
        """Returns when `draft`, one of `running`, has no more in memory than it may.

        Its provider waits meanwhile.
        """
        most = max(_MOST_UNWRITTEN_OF_ALL_BYTES // running, LEAST_UNWRITTEN_BYTES)
        most = min(most, MOST_UNWRITTEN_BYTES)
        # What is awaited is PostgreSQL.
        while draft.unwritten > most and draft.waits and not draft.unpackable:  # noqa: ASYNC110
            await asyncio.sleep(_SEGMENT)

    def end(
        self,
        draft: Draft,
        close: Callable[[bytes], Closing],
        keep: Callable[[Closing], Exchange | None],
    ) -> asyncio.Future[None]:
        """Done when the ending of `draft` is committed, however long that takes."""
        written = asyncio.get_running_loop().create_future()
        self._ends.put_nowait(End(draft, close, keep, written))
        return written

    async def _open_all(self, openings: Sequence[Opening]) -> list[bool]:
        there = await self.opener.run(lambda c: generations.open_all(c, openings))
        return [opening.id in there for opening in openings]

    async def _journal_all(self) -> None:
        while True:
            await self._something.wait()
            await asyncio.sleep(_SEGMENT)
            async with self._writing:
                await self._journal()

    async def _journal(self) -> None:
        drafts = [draft for draft in self._waiting if not draft.ended]
        self._waiting = []
        self._something.clear()
        segments: list[Noted] = []
        for draft in drafts:
            try:
                segments += _segments(draft)
            except Exception as error:  # `waits` stays, so it is not tried again.
                draft.unpackable = True
                _log_unpacked(draft, error)
            else:
                draft.waits = False
        if not segments:
            return
        reach("chat.segment")
        failed: set[UUID] = set()
        for some in portions(segments, lambda each: len(each.segment.parts)):
            # What comes after a part that is not written down is not written down either.
            left = [noted for noted in some if noted.segment.generation_id not in failed]
            if left and not await self._write_segments(left):
                failed |= {noted.segment.generation_id for noted in left}

    async def _write_segments(self, noted: Sequence["Noted"]) -> bool:
        segments = [each.segment for each in noted]
        try:
            over = await self.closer.run(lambda c: generations.write(c, segments))
        except Exception as error:  # They are part of what is written next.
            log.warning("segments wait", count=len(segments), error=type(error).__name__)
            for each in noted:
                self.note(each.draft)
            return False
        for each in noted:
            draft, segment = each.draft, each.segment
            draft.seq_written = segment.seq
            draft.tokens_written += segment.pieces
            draft.unwritten -= each.size
            draft.relieved |= segment.generation_id in over
            if not draft.relieved:
                draft.generation.trim(segment.seq)
        return True

    async def _close_all(self) -> None:
        busy = False
        while True:
            ends = [await self._ends.get()]
            if busy:
                await asyncio.sleep(_WRITTEN_TOGETHER)
            while not self._ends.empty() and len(ends) < _MOST_AT_ONCE:
                ends.append(self._ends.get_nowait())
            busy = len(ends) > 1
            async with self._writing:
                await self._close(ends)
            for end in ends:
                if not end.written.done() and end.draft.opening.id not in self._aside:
                    end.written.set_result(None)
                self._ends.task_done()

    async def _close(self, ends: Sequence[End]) -> None:
        made: list[Made] = []
        for end in ends:
            end.draft.ended = True
            made += _made(end)
        for some in portions(made, lambda each: len(each[1].tail)):
            await self._write(some)

    async def _write(self, made: Sequence[Made]) -> None:
        """Stores endings, or sets those aside that keep others waiting."""
        for _ in range(_TRIES_TOGETHER):
            if await self._written(made):
                return
            await asyncio.sleep(_TRY_AGAIN_AFTER)
        for each in made:  # It may be one of them, and not PostgreSQL, that is to blame.
            if len(made) == 1 or not await self._written([each]):
                self._set_aside(each)

    def _set_aside(self, made: Made) -> None:
        log.error("an ending is set aside", generation_id=str(made[1].id))
        self._aside[made[1].id] = asyncio.create_task(self._write_aside(made))

    async def _write_aside(self, made: Made) -> None:
        """Tries one alone until it is stored.

        When others could be stored meanwhile, and it can't be three times, its text is given
        up: what it cost stays.
        """
        end, closing, _ = made
        stored, failed = self._stored, 0
        without = replace(
            closing, tail=pack_tail(end.draft.seq_written, []), warning=TEXT_NOT_STORED
        )
        while not await self._written([made]):
            failed += 1
            alone = failed >= _TRIES_ASIDE and self._stored > stored
            if alone and await self._written([(end, without, None)]):
                log.error("the text of an ending is not stored", generation_id=str(closing.id))
                break
            await asyncio.sleep(min(_TRY_AGAIN_AFTER * failed, _LONGEST_PAUSE))
        if not end.written.done():
            end.written.set_result(None)
        del self._aside[closing.id]

    async def _written(self, made: Sequence[Made]) -> bool:
        closings = [closing for _, closing, _ in made]
        exchanges = {closing.id: kept for _, closing, kept in made if kept}
        try:
            reach("chat.ending")
            # One statement closes generations that leave no messages: most of them.
            if exchanges:
                ended = await self.database.run(
                    lambda c: generations.close_all(c, closings, exchanges)
                )
            else:
                ended = await self.closer.run(lambda c: generations.close_all(c, closings, {}))
            found = await self._found(closings, ended)
        except (errors.Unavailable, *_PASSING) as error:
            log.warning("endings wait to be stored", count=len(made), error=str(error))
            return False
        except Exception as error:
            await self._isolate(made, error)
            return True
        reach("chat.ended")
        self._stored += len(made)
        for end, closing, _ in made:
            if closing.id in found:
                end.draft.lost, end.draft.ended_as = True, found[closing.id]
            elif closing.owed:
                self.told(consumption(end.draft.opening, closing))
        return True

    async def _found(
        self, closings: Sequence[Closing], ended: Collection[UUID]
    ) -> Mapping[UUID, Ending | None]:
        """How those are stored that did not end by this, or before an answer of it was lost."""
        others = [closing.id for closing in closings if closing.id not in ended]
        if not others:
            return {}
        rows = await self.database.run_one(lambda c: generations.read(c, others))
        return {row.id: row.ending for row in rows}

    async def _isolate(self, made: Sequence[Made], error: Exception) -> None:
        """Finds which of a group can't be stored, so that it takes no other with it.

        Of that one the messages are given up first: what it cost stays.
        """
        if len(made) > 1:
            for each in made:
                await self._write([each])
            return
        ((end, closing, kept),) = made
        if kept is not None:
            await self._write([(end, closing, None)])
        log.error("an ending can't be stored", generation_id=str(closing.id), exc_info=error)


@dataclass(frozen=True, slots=True)
class Noted:
    """A segment to be written down, and how many bytes of its draft's parts are in it."""

    draft: Draft
    segment: Segment
    size: int


def _segments(draft: Draft) -> list[Noted]:
    """What `draft` has more than is written down, the tokens with the first."""
    generation, seq = draft.generation, draft.seq_written
    tokens = draft.tokens.completion - draft.tokens_written
    noted = []
    for some in portions(generation.pieces(seq), _size, most=_LONGEST_SEGMENT_BYTES):
        seq += len(some)
        segment = Segment(generation.id, seq, generation.base, tokens, pack(list(some)))
        noted.append(Noted(draft, segment, sum(map(_size, some))))
        tokens = 0
    return noted


def _size(piece: Piece) -> int:
    text, raw = piece
    return len(text) + len(raw)


def _made(end: End) -> list[Made]:
    """How `end` is written down: without its last parts if they can't be, as what it cost stays."""
    after = end.draft.seq_written
    for pieces in (end.draft.generation.pieces(after), []):
        try:
            closing = end.close(pack_tail(after, pieces))
            return [(end, closing, end.keep(closing))]
        except Exception as error:
            _log_unpacked(end.draft, error)
    return []


def _log_unpacked(draft: Draft, error: Exception) -> None:
    log.error("parts can't be packed", generation_id=str(draft.opening.id), exc_info=error)


def portions(
    rows: Sequence[T], size: Callable[[T], int], *, most: int = _MOST_BYTES
) -> Iterator[Sequence[T]]:
    """`rows` in order, so many at a time as a statement can take: 8 MiB, or one that is larger."""
    first = held = 0
    for at, row in enumerate(rows):
        if held and held + size(row) > most:
            yield rows[first:at]
            first, held = at, 0
        held += size(row)
    if rows:
        yield rows[first:]
