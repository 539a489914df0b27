"""Who is let in with a large request, and who waits."""

import asyncio

import pytest

from mesh import errors
from mesh.calls import bodies
from mesh.calls.bodies import Bodies

MIB = 1 << 20


async def let_in(room: Bodies, caller: str, size: int) -> asyncio.Task:
    """A task that waits to be let in, and has begun to."""
    task = asyncio.create_task(_read(room, caller, size))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def _read(room: Bodies, caller: str, size: int):
    leave = await room.let_in(caller, size)
    bodies.read()
    return leave


async def test_a_caller_has_half_of_the_room_and_others_find_theirs():
    room = Bodies(10 * MIB)
    first, second, third = [await let_in(room, "a", 3 * MIB) for _ in range(3)]
    other = await let_in(room, "b", 3 * MIB)
    assert [each.done() for each in (first, second, third, other)] == [True, False, False, True]
    first.result()()
    await asyncio.sleep(0.01)
    assert [second.done(), third.done()] == [True, False]
    for each in (second, other):
        each.result()()
    (await third)()
    assert room.taken == 0


async def test_what_is_larger_than_all_room_is_let_in_alone():
    room = Bodies(10 * MIB)
    giant = await let_in(room, "a", 64 * MIB)
    small = await let_in(room, "b", MIB)
    assert (giant.done(), small.done()) == (True, False)
    giant.result()()
    (await small)()


async def test_they_are_read_one_after_the_other():
    room = Bodies(10 * MIB)
    leave = await room.let_in("a", MIB)
    second = await let_in(room, "b", MIB)
    assert not second.done()
    bodies.read()
    (await second)()
    leave()
    assert room.taken == 0


@pytest.mark.parametrize("waits", [True, False])
async def test_who_leaves_takes_no_room(waits: bool):
    room = Bodies(10 * MIB)
    leave = await room.let_in("a", MIB)
    waiting = await let_in(room, "b", MIB)
    if not waits:
        leave()
    waiting.cancel()
    await asyncio.wait({waiting})
    if waits:
        leave()
    assert room.taken == 0
    (await room.let_in("c", 10 * MIB))()


async def test_who_waits_for_long_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bodies, "_LONGEST_WAIT_S", 0.01)
    room = Bodies(10 * MIB)
    leave = await room.let_in("a", 10 * MIB)
    with pytest.raises(errors.Unavailable) as full:
        await room.let_in("b", MIB)
    assert (full.value.reason, full.value.retry_after) == ("OVERLOADED", 1)
    leave()
    (await room.let_in("b", MIB))()
