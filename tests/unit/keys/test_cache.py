"""What is known of keys, for how long, and how often it is read."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from mesh.errors import Unavailable
from services.keys import cache
from services.keys.cache import Cache
from services.keys.domain.keys import Key
from tests.support import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def key(number, name="test"):
    digest = bytes([number])
    return Key(UUID(int=number), UUID(int=99), name, "ai_abcde", digest, 60, (), None, NOW)


class Table:
    """Rows that are read like those of a database, and a clock."""

    def __init__(self, *keys):
        self.rows = {each.digest: each for each in keys}
        self.reads = []
        self.now = 0.0
        self.down = False
        self.open = asyncio.Event()
        self.open.set()
        self.cache = Cache(self.read, lambda: self.now)

    async def read(self, digests):
        self.reads.append(tuple(digests))
        found = {digest: self.rows[digest] for digest in digests if digest in self.rows}
        await self.open.wait()
        if self.down:
            raise Unavailable("UNAVAILABLE", "no database")
        return found


async def test_a_key_in_use_is_read_once_and_then_refreshed_with_the_others():
    table = Table(key(1), key(2))
    for second in range(10):
        for digest in (b"\1", b"\2") * 3:
            assert await table.cache.find(digest) is table.rows[digest]
        table.now = second + cache.REFRESH_EVERY
        await table.cache.refresh()

    assert table.reads == [(b"\1",), (b"\2",), *[(b"\1", b"\2")] * 10]


async def test_nothing_is_believed_for_longer_than_its_lifetime_after_the_reading_began():
    table = Table(key(1, "old"))
    table.open.clear()
    finding = asyncio.create_task(table.cache.find(b"\1"))
    await eventually(lambda: table.reads)
    table.now += 1
    table.rows = {b"\1": key(1, "new")}
    table.open.set()
    await finding

    seen = {}
    for table.now in (1.0, cache.LIFETIME - 0.01, cache.LIFETIME):
        found = await table.cache.find(b"\1")
        seen[table.now] = found.name

    assert list(seen.values()) == ["old", "old", "new"]


async def test_callers_who_come_together_share_one_reading_even_if_the_first_one_leaves():
    table = Table(key(1))
    table.open.clear()
    finding = [asyncio.create_task(table.cache.find(b"\1")) for _ in range(10)]
    await eventually(lambda: table.reads)
    finding[0].cancel()
    table.open.set()
    found = await asyncio.gather(*finding, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [key(1)] * 9
    assert table.reads == [(b"\1",)]


async def test_that_there_is_no_such_key_is_believed_for_a_second():
    table = Table()
    assert [await table.cache.find(b"\1") for _ in range(5)] == [None] * 5
    table.rows = {b"\1": key(1)}
    table.now += 1

    assert await table.cache.find(b"\1") == key(1)
    assert len(table.reads) == 2


@pytest.mark.parametrize("drop", ["forget", "clear"])
async def test_a_changed_key_is_read_again_at_once(drop):
    table = Table(key(1, "old"))
    await table.cache.find(b"\1")
    table.rows = {b"\1": key(1, "new")}
    if drop == "forget":
        table.cache.forget(UUID(int=1))
    else:
        table.cache.clear()

    found = await table.cache.find(b"\1")
    assert found.name == "new"


async def test_a_key_is_forgotten_in_every_place_where_it_was_found():
    table = Table()
    table.rows = {b"\1": key(1, "old"), b"\2": key(1, "old")}
    for digest in table.rows:
        await table.cache.find(digest)
    table.rows = dict.fromkeys(table.rows, key(1, "new"))
    table.cache.forget(UUID(int=1))

    assert [(await table.cache.find(digest)).name for digest in table.rows] == ["new", "new"]


@pytest.mark.parametrize("reading", ["first", "refresh"])
async def test_a_change_during_a_reading_is_not_undone_by_it(reading):
    table = Table(key(1, "old"))
    if reading == "refresh":
        await table.cache.find(b"\1")
    reads = len(table.reads)
    table.open.clear()
    work = table.cache.refresh() if reading == "refresh" else table.cache.find(b"\1")
    running = asyncio.create_task(work)
    await eventually(lambda: len(table.reads) > reads)
    table.rows = {b"\1": key(1, "new")}
    table.cache.forget(UUID(int=1))
    table.open.set()
    await running

    found = await table.cache.find(b"\1")
    assert found.name == "new"


async def test_a_deleted_key_is_dropped_when_it_is_refreshed():
    table = Table(key(1))
    await table.cache.find(b"\1")
    table.rows = {}
    await table.cache.refresh()

    assert await table.cache.find(b"\1") is None


async def test_without_a_database_known_keys_are_good_for_their_lifetime_and_no_longer():
    table = Table(key(1))
    await table.cache.find(b"\1")
    table.down = True
    with pytest.raises(Unavailable):
        await table.cache.refresh()
    table.now = cache.LIFETIME - 0.01

    assert await table.cache.find(b"\1") == key(1)
    table.now = cache.LIFETIME
    for _ in range(2):
        with pytest.raises(Unavailable):
            await table.cache.find(b"\1")


async def test_a_database_that_hangs_is_unavailable_before_callers_give_up(monkeypatch):
    monkeypatch.setattr(cache, "_PATIENCE", 0.01)
    table = Table()
    table.open.clear()

    with pytest.raises(Unavailable):
        await table.cache.find(b"\1")


async def test_what_is_not_used_any_more_is_dropped():
    table = Table(key(1), key(2))
    for digest in (b"\1", b"\2", b"\3"):
        await table.cache.find(digest)
    for _ in range(12):
        table.now += 1
        await table.cache.refresh()
        await table.cache.find(b"\2")

    assert list(table.cache._entries) == [b"\2"]
    assert list(table.cache._places.values()) == [{b"\2"}]


async def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(cache, "_MOST", 10)
    table = Table(key(1))
    for number in range(100):
        await table.cache.find(bytes([number]))

    assert len(table.cache._entries) <= 10
