"""PostgreSQL breaks its connections, or goes away: what callers see of it."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from urllib.parse import urlsplit

import grpc
import psycopg
import pytest

from khesht.items.v1 import items_service_pb2 as pb
from mesh import db, server
from mesh.local import postgres
from services.keys import secret
from tests import harness
from tests.contract.described import Method
from tests.integration.conftest import Person, new_person
from tests.integration.mesh.gate import Gate, gate
from tests.integration.mesh.rows import rows, writing
from tests.integration.mesh.rpc import UNARY, Outcome, call, channel, credentials_of, outcome
from tests.support import eventually

LIST, CREATE = (f"/khesht.items.v1.ItemsService/{name}" for name in ("ListItems", "CreateItem"))
HEALTH = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # A HealthCheckResponse with this status.
OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE
WRITING = [method for method in UNARY if method.name.rsplit("/", 1)[1] in writing("")]
Create = Callable[[str], Awaitable[Outcome]]


@pytest.fixture(scope="module")
async def person(mesh: harness.Mesh) -> Person:
    """One account for all tests here: to register costs more than they do."""
    return await new_person(mesh)


@pytest.fixture(scope="module")
def scratch(admin_dsn: str) -> str:
    return harness.new_database(admin_dsn, "that_breaks")


@pytest.fixture
async def create(mesh: harness.Mesh, scratch: str, person: Person) -> AsyncIterator[Create]:
    """Creates an item of a name, in the database that breaks."""
    own = replace(mesh, admin_dsn=scratch)
    async with (
        harness.replica(own, "items") as replica,
        channel(replica, "items", credentials_of(replica, "edge")) as opened,
    ):

        async def create(name: str) -> Outcome:
            request = pb.CreateItemRequest(name=name, price=1).SerializeToString()
            return await outcome(opened, CREATE, request, metadata=person.by_token)

        yield create


def break_connections(dsn: str) -> int:
    """Ends all that items does in the database of `dsn`; how many connections it had."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE usename = %s AND datname = current_database()",
            [postgres.role("items")],
        )
        return len(ended.fetchall())


def created(dsn: str, prefix: str) -> Counter[str]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = connection.execute(
            "SELECT name FROM items.items WHERE name LIKE %s", [f"{prefix}%"]
        )
        return Counter(str(name) for (name,) in found)


async def broken_under_load(dsn: str, create: Create, prefix: str) -> dict[str, Outcome]:
    """What became of items that 4 callers create while all connections break 5 times."""
    ended: dict[str, Outcome] = {}
    done = asyncio.Event()

    async def calling(caller: int) -> None:
        while not done.is_set():
            name = f"{prefix}-{caller}-{len(ended)}"
            ended[name] = await create(name)

    callers = [asyncio.create_task(calling(caller)) for caller in range(4)]
    for _ in range(5):
        seen = len(ended)
        await eventually(lambda seen=seen: len(ended) > seen + 20)
        assert await asyncio.to_thread(break_connections, dsn) > 0
    done.set()
    await asyncio.gather(*callers)
    return ended


async def test_connections_that_break_fail_no_call(scratch: str, create: Create):
    ended = await broken_under_load(scratch, create, "kept")
    assert len(ended) > 100
    assert {each.code for each in ended.values()} == {OK}
    assert set(created(scratch, "kept")) == set(ended)


async def test_without_another_try_they_fail_some(
    scratch: str, create: Create, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(db, "_PAUSES", ())
    ended = await broken_under_load(scratch, create, "lost")
    failed = [each for each in ended.values() if each.code is not OK]
    assert failed
    assert {(each.code, each.reason) for each in failed} == {(UNAVAILABLE, "UNAVAILABLE")}


async def test_a_database_that_is_gone_makes_calls_unavailable_until_it_is_back(
    mesh: harness.Mesh, scratch: str, person: Person, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "_CHECK_EVERY", 0.05)
    async with gate(urlsplit(scratch).port or 0) as way:
        own = replace(mesh, admin_dsn=through(way, scratch))
        async with (
            harness.replica(own, "keys") as keys,
            harness.replica(keys, "items") as items,
            channel(items, "items", credentials_of(items, "edge")) as opened,
        ):

            async def serving() -> bool:
                return bool(await opened.unary_unary(HEALTH)(b"", timeout=5) == SERVING)

            async def list_items(credential: str) -> Outcome:
                return await outcome(opened, LIST, metadata=harness.bearer(credential))

            assert await serving()
            assert (await list_items(person.token)).code is OK
            unknown = secret.new_secret()
            assert (await list_items(unknown)).code is grpc.StatusCode.UNAUTHENTICATED

            await way.shut()
            began = asyncio.get_running_loop().time()
            answers = await asyncio.gather(
                list_items(person.token), list_items(secret.new_secret())
            )
            assert asyncio.get_running_loop().time() - began < 4
            assert {(each.code, each.reason) for each in answers} == {(UNAVAILABLE, "UNAVAILABLE")}
            assert not [each for each in answers if "127.0.0.1" in each.text]

            async def not_serving() -> bool:
                return not await serving()

            await eventually(not_serving)

            await way.open()
            await eventually(serving)
            assert (await list_items(person.token)).code is OK
            await eventually(lambda: _code_is(list_items(unknown), grpc.StatusCode.UNAUTHENTICATED))


def through(way: Gate, dsn: str) -> str:
    """`dsn` by way of a gate."""
    place = urlsplit(dsn)
    netloc = place.netloc.replace(f":{place.port}", f":{way.port}")
    return place._replace(netloc=netloc).geturl()


@pytest.mark.parametrize("method", WRITING, ids=lambda method: method.name.rsplit("/", 1)[1])
async def test_a_lost_answer_to_a_commit_neither_loses_nor_doubles(
    mesh: harness.Mesh, scratch: str, person: Person, method: Method
):
    mark = f"once-{uuid.uuid4().hex}"
    request, where = writing(mark)[method.name.rsplit("/", 1)[1]]
    async with gate(urlsplit(scratch).port or 0) as way:
        own = replace(mesh, admin_dsn=through(way, scratch))
        async with harness.replica(own, method.service) as replica:
            way.losing = True
            ended = await call(replica, person, method, request.SerializeToString(), 5)
            assert not way.losing
            assert ended.code is OK, ended
            assert rows(scratch, where) == 1


async def test_a_lock_that_somebody_holds_makes_calls_unavailable(scratch: str, create: Create):
    assert (await create("before")).code is OK
    async with await psycopg.AsyncConnection.connect(scratch) as holding:
        await holding.execute("LOCK TABLE items.items IN ACCESS EXCLUSIVE MODE")
        began = asyncio.get_running_loop().time()
        ended = await create("meanwhile")
        assert (ended.code, ended.reason) == (UNAVAILABLE, "UNAVAILABLE")
        assert asyncio.get_running_loop().time() - began < 4
        await holding.rollback()
    assert (await create("after")).code is OK
    assert created(scratch, "meanwhile") == Counter()


async def _code_is(calling: Awaitable[Outcome], code: grpc.StatusCode) -> bool:
    return (await calling).code is code
