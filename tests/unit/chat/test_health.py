"""How often the mesh is asked how it does, whoever asks."""

import asyncio

from services.chat.commands.health import Health


async def test_a_flood_of_questions_is_one_look():
    looks: list[int] = []

    def is_ready() -> bool:
        looks.append(1)
        return len(looks) > 1

    health = Health({}, is_ready)
    told = await asyncio.gather(*(health.condition() for _ in range(100)))
    told.append(await health.condition())
    assert len(looks) == 1
    assert {tuple(each.problems) for each in told} == {("chat is not ready",)}


async def test_one_who_leaves_ends_the_look_for_nobody_else():
    def is_ready() -> bool:
        first.cancel()
        return True

    health = Health({}, is_ready)
    first = asyncio.create_task(health.condition())
    second = asyncio.create_task(health.condition())
    assert (await second).problems == []
    await asyncio.wait({first})
    assert first.cancelled()
