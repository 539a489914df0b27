"""One sequence of events, whoever reads it, from wherever, however slowly."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chat.domain.generation import (
    Delta,
    Ending,
    Generation,
    Last,
    Origin,
    Status,
    interrupted,
)
from services.chat.domain.tokens import Basis, Tokens

ORIGIN = Origin(UUID(int=1), None, "request", datetime.now(UTC), None)
PARTS = st.lists(st.text(max_size=5), max_size=20)


def new_generation() -> Generation:
    return Generation(UUID(int=2), ORIGIN)


def ending() -> Ending:
    return Ending(Status.COMPLETED, "", "m", "stop", Tokens(1, 2, Basis.PROVIDER))


async def read(generation: Generation, after: int = 0) -> list[Delta | Last]:
    return [event async for event in generation.follow(after)]


@given(parts=PARTS, data=st.data())
def test_from_any_place_the_rest_of_the_text_and_the_ending_follow(
    parts: list[str], data: st.DataObject
):
    after = data.draw(st.integers(0, len(parts)))
    generation = new_generation()
    for part in parts:
        generation.append(part)
    end = ending()
    generation.end(end)
    events = asyncio.run(read(generation, after))
    assert "".join(e.text for e in events[:-1] if isinstance(e, Delta)) == "".join(parts[after:])
    assert events[-1] == Last(len(parts) + 1, end)
    assert len(events) == 1 + (after < len(parts))  # What is there together is one event.


@settings(deadline=None)
@given(
    parts=st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=12),
    pauses=st.lists(st.booleans(), min_size=12, max_size=12),
    slow=st.integers(0, 4),
)
def test_a_reader_who_resumes_gets_what_one_who_stayed_got(
    parts: list[str], pauses: list[bool], slow: int
):
    async def run() -> None:
        generation = new_generation()

        async def write() -> None:
            for part, pause in zip(parts, pauses, strict=False):
                generation.append(part)
                if pause:
                    await asyncio.sleep(0)
            generation.end(ending())

        async def read_slowly() -> list[Delta | Last]:
            events = []
            async for event in generation.follow():
                events.append(event)
                for _ in range(slow):
                    await asyncio.sleep(0)
            return events

        live, late, _ = await asyncio.gather(read(generation), read_slowly(), write())
        for events in (live, late):
            seqs = [event.seq for event in events]
            assert seqs == sorted(set(seqs))
            assert seqs[-1] == len(parts) + 1
            got = 0
            for event in events[:-1]:
                assert isinstance(event, Delta)
                assert event.text == "".join(parts[got : event.seq])
                got = event.seq
            for event in events:  # Whoever broke off there goes on from there.
                rest = await read(generation, min(event.seq, len(parts)))
                text = "".join(each.text for each in rest if isinstance(each, Delta))
                assert text == "".join(parts[event.seq :])

    asyncio.run(run())


async def test_events_come_as_they_are_made():
    generation = new_generation()
    events = generation.follow()
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    assert not waiting.done()
    generation.append("a")
    first = await waiting
    assert (first.seq, first.text) == (1, "a")
    generation.append("b")
    generation.append("c")
    both = await anext(events)
    assert (both.seq, both.text) == (3, "bc")
    generation.end(ending())
    assert await anext(events) == Last(4, ending())
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_the_ending_is_told_to_all_who_wait():
    generation = new_generation()
    waiting = [asyncio.create_task(generation.ended()) for _ in range(5)]
    await asyncio.sleep(0)
    generation.append("not the end")
    await asyncio.sleep(0)
    assert not [task for task in waiting if task.done()]
    generation.end(ending())
    assert await asyncio.gather(*waiting) == [ending()] * 5
    assert await generation.ended() == ending()


async def test_it_ends_once():
    generation = new_generation()
    generation.end(ending())
    with pytest.raises(RuntimeError, match="has ended already"):
        generation.end(ending())
    assert await read(generation) == [Last(1, ending())]


async def test_a_reader_who_leaves_is_forgotten():
    generation = new_generation()
    reader = asyncio.create_task(generation.ended())
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert not generation._waiting
    generation.append("a")
    generation.end(ending())
    assert generation.text == "a"


async def test_what_is_too_much_for_a_message_comes_in_several():
    generation = new_generation()
    raws = [bytes([n % 256]) * 300 for n in range(20_000)]
    generation.extend([("x", raw) for raw in raws])
    generation.append("y", b"z" * 3_000_000)
    events = generation.follow()
    deltas = [await anext(events)]
    while deltas[-1].seq < generation.seq:
        deltas.append(await anext(events))
    assert b"".join(each.raw for each in deltas) == b"".join(raws) + b"z" * 3_000_000
    assert max(len(each.raw) for each in deltas) == 3_000_000
    assert len(deltas) < 40


async def test_the_ending_has_its_own_place_unless_a_reader_has_more_than_was_written_down():
    whole, broken = new_generation(), new_generation()
    died = interrupted()
    interruption = replace(ending(), status=Status.FAILED, reason=died.reason, error=died)
    for generation, end in ((whole, ending()), (broken, interruption)):
        generation.append("written down")
        generation.end(end)
    assert await read(whole, after=2) == await read(whole, after=5) == [Last(2, ending())]
    assert await read(broken, after=5) == [Last(6, interruption)]
