"""Work in groups: who is alone waits for nobody, and company is waited for."""

import asyncio
from collections.abc import Sequence

import pytest

from mesh import errors
from mesh.grouped import Grouped


class Groups:
    """Notes the groups that come."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    async def work(self, items: Sequence[int]) -> Sequence[int]:
        self.seen.append(list(items))
        return items


async def test_one_alone_does_not_wait_for_company():
    groups = Groups()
    grouped = Grouped(groups.work, 10, pause=60)

    for item in range(3):
        async with asyncio.timeout(5):
            assert await grouped.do(item) == item
    assert groups.seen == [[0], [1], [2]]


async def in_company(pause: float) -> list[list[int]]:
    """The groups of three that come together, and two that come a moment after each other."""
    groups = Groups()
    grouped = Grouped(groups.work, 10, pause)
    await asyncio.gather(*(grouped.do(item) for item in range(3)))
    early, moment = asyncio.create_task(grouped.do(3)), asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, moment.set)
    await moment.wait()
    await asyncio.gather(early, grouped.do(4))
    return groups.seen


async def test_after_company_the_next_waits_for_more():
    assert await in_company(pause=0.3) == [[0, 1, 2], [3, 4]]


async def test_without_a_pause_nobody_is_waited_for():
    assert await in_company(pause=0) == [[0, 1, 2], [3], [4]]


async def test_who_waits_for_work_that_is_cancelled_is_told_and_who_comes_later_is_served():
    begun = asyncio.Event()

    async def work(items: Sequence[int]) -> Sequence[int]:
        if 0 in items:
            begun.set()
            await cancelled
        return items

    grouped, cancelled = Grouped(work, 10), asyncio.get_running_loop().create_future()
    early = asyncio.create_task(grouped.do(0))
    await begun.wait()
    late = asyncio.create_task(grouped.do(1))
    await asyncio.wait([late], timeout=0)
    cancelled.cancel()

    async with asyncio.timeout(5):
        for each in (early, late):
            with pytest.raises(errors.Unavailable):
                await each
        assert await grouped.do(2) == 2
