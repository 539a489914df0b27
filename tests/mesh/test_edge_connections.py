"""Connections that say nothing shut nobody out."""

import asyncio
import contextlib
import ipaddress
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from cli.relief import connections_by_network
from tests import patience
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up, new_account, started_with
from tests.support import eventually

CALLERS = 20
PIECES = ("a", "b", "c", "d", "e")
HALF_A_REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n"
# Envoy waits 30 s for the rest, and doesn't take the connection for idle.
HALF_A_BODY = b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
ELSEWHERE = "127.0.0.2"
NETWORK_ELSEWHERE = ipaddress.IPv4Network(ELSEWHERE)


@asynccontextmanager
async def running(folder: Path, provider: FakeOpenAI, **settings: str) -> AsyncIterator[Up]:
    async with started_with(
        provider,
        folder / "home",
        RATE_LIMIT_PER_MINUTE="100000",
        **settings,
    ) as up:
        yield up


@contextmanager
def many_descriptors() -> Iterator[int]:
    """The soft limit of this process is the hard one, and given."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        yield most
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, most))


@asynccontextmanager
async def strangers(port: int, count: int, say: bytes = b"") -> AsyncIterator[None]:
    """As many connections of one other host, kept open, and opened again when they end."""

    async def stay(after: float) -> None:
        await asyncio.sleep(after)
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, local_addr=(ELSEWHERE, 0)
                )
                try:
                    writer.write(say)
                    await reader.read(1)
                finally:
                    writer.transport.abort()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            await asyncio.sleep(1)

    # As over a network, they don't come within one millisecond.
    tasks = [asyncio.create_task(stay(number / count)) for number in range(count)]
    try:
        await asyncio.sleep(0)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def slowest_reply(up: Up, account: Account, rounds: int) -> float:
    """Seconds of the slowest of all callers' replies, each streamed on a connection of its own."""

    async def call() -> float:
        slowest = 0.0
        for _ in range(rounds):
            began = time.monotonic()
            answer = await up.call(
                "POST",
                "/chat/stream",
                {"message": "Hi", "model": "gpt-4o-mini"},
                account.key,
                Connection="close",
            )
            assert (answer.status, answer.text.count('"token"')) == (200, len(PIECES))
            slowest = max(slowest, time.monotonic() - began)
        return slowest

    return max(await asyncio.gather(*(call() for _ in range(CALLERS))))


@pytest.mark.parametrize("say", [b"", HALF_A_REQUEST], ids=["silent", "half a request"])
async def test_strangers_that_say_nothing_cost_callers_no_reply_and_no_second(
    tmp_path: Path, provider: FakeOpenAI, say: bytes
):
    provider.script = Script(pieces=PIECES, pause=0.1)
    with many_descriptors() as most:
        count = 3000 if most > 5000 else 300
        async with running(tmp_path, provider) as up:
            account = await new_account(up)
            before = await slowest_reply(up, account, rounds=3)
            async with strangers(up.gateway, count, say), strangers(up.grpc, 50):
                during = await slowest_reply(up, account, rounds=8)
    assert not patience.is_over(during - before, 1.0), (before, during)


async def answers(up: Up, source: str) -> bool:
    """Whether the edge answers a new connection from that address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", up.gateway, local_addr=(source, 0))
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False
    finally:
        writer.close()


@pytest.mark.parametrize(("limit", "answered"), [("100", False), ("1000", True)])
async def test_an_address_with_too_many_connections_gets_no_more(
    tmp_path: Path, provider: FakeOpenAI, limit: str, answered: bool
):
    provider.script = Script(pieces=PIECES, pause=0.1)
    limits = {"EDGE_CONNECTIONS": "1000", "EDGE_CONNECTIONS_PER_ADDRESS": limit}
    async with running(tmp_path, provider, **limits) as up:
        account = await new_account(up)
        async with strangers(up.gateway, 300, HALF_A_BODY):

            async def there() -> bool:
                return connections_by_network(frozenset({up.gateway}))[NETWORK_ELSEWHERE] > 100

            async def as_expected() -> bool:
                return await answers(up, ELSEWHERE) is answered

            await eventually(there, within=20)
            await eventually(as_expected, within=20)
            assert any(f"{NETWORK_ELSEWHERE} has" in line for line in up.output) is not answered
            await slowest_reply(up, account, rounds=2)


async def test_idle_connections_give_way_where_there_is_room_for_few(
    tmp_path: Path, provider: FakeOpenAI
):
    provider.script = Script()
    async with running(tmp_path, provider, EDGE_CONNECTIONS="200") as up:
        opened = [await asyncio.open_connection("127.0.0.1", up.gateway) for _ in range(150)]

        async def closed() -> bool:
            return all(reader.at_eof() for reader, _ in opened)

        await eventually(closed, within=10)  # Without pressure it takes 75 s.
        assert (await up.call("GET", "/health")).status == 200
        for _, writer in opened:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_an_edge_without_room_refuses_says_so_and_is_well_again(
    tmp_path: Path, provider: FakeOpenAI
):
    provider.script = Script(pieces=("a",) * 100, pause=0.2)
    async with running(tmp_path, provider, EDGE_CONNECTIONS="100") as up:
        account = await new_account(up)
        body = {"message": "Hi", "model": "gpt-4o-mini"}
        # Connections with a request are not idle, and keep their place.
        streams = [
            asyncio.create_task(
                up.call("POST", "/chat/stream", body, account.key, Connection="close")
            )
            for _ in range(99)
        ]

        async def sick() -> bool:
            return not (await up.statuses())["edge"]["healthy"]

        await eventually(sick, within=15)
        assert any("hardly room" in line for line in up.output)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)

        async def well() -> bool:
            return bool((await up.statuses())["edge"]["healthy"])

        await eventually(well, within=30)
