"""Clients that go away by the hundred, in every way there is, while others are served."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from tests import patience
from tests.fake_openai import FakeOpenAI, Request, Script
from tests.mesh.running import Account, Up, new_account
from tests.support import eventually

TRIALS, AT_ONCE = 50, 5
ENDLESS = Script(pieces=("word ",) * 4_000, pause=0.01)
WITHIN = 0.25

# Goes away, and says when it did.
Leave = Callable[[], Awaitable[float]]


def asked(provider: FakeOpenAI, mark: str) -> Request | None:
    """What the provider was asked with `mark` in it, once it has answered some."""
    found = (r for r in provider.requests if mark in json.dumps(r.body) and r.sent > 5)
    return next(found, None)


async def by_socket(up: Up, key: str, mark: str, *, reset: bool) -> Leave:
    body = json.dumps({"message": mark, "model": "fast", "store": False}).encode()
    head = (
        f"POST /chat/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", up.gateway)
    writer.write(head.encode() + body)

    async def leave() -> float:
        left_at = time.monotonic()
        writer.transport.abort() if reset else writer.close()
        return left_at

    return leave


async def by_closing(up: Up, key: str, mark: str) -> Leave:
    return await by_socket(up, key, mark, reset=False)


async def by_reset(up: Up, key: str, mark: str) -> Leave:
    return await by_socket(up, key, mark, reset=True)


async def by_http2_reset(up: Up, key: str, mark: str) -> Leave:
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}")
    request = pb.StreamReplyRequest(message=mark, model="fast", store=False)
    call = pb_grpc.ChatServiceStub(channel).StreamReply(
        request, timeout=60, metadata=(("authorization", f"Bearer {key}"),)
    )

    async def leave() -> float:
        left_at = time.monotonic()
        call.cancel()
        return left_at

    return leave


async def by_death(up: Up, key: str, mark: str) -> Leave:
    body = json.dumps({"message": mark, "model": "fast", "store": False})
    client = await asyncio.create_subprocess_exec(
        *("curl", "-sN", f"{up.url}/chat/stream", "-d", body),
        *("-H", f"X-API-Key: {key}", "-H", "Content-Type: application/json"),
        stdout=asyncio.subprocess.DEVNULL,
    )

    async def leave() -> float:
        left_at = time.monotonic()
        client.send_signal(signal.SIGKILL)
        await client.wait()
        return left_at

    return leave


@contextlib.asynccontextmanager
async def load(up: Up, account: Account) -> AsyncIterator[None]:
    """Others who are served meanwhile."""
    body = {"message": "one two three", "model": "echo", "store": False}

    async def ask() -> None:
        while True:
            assert (await up.call("POST", "/chat", body, account.key)).status == 200

    asking = [asyncio.create_task(ask()) for _ in range(2)]
    try:
        yield
    finally:
        assert not [task for task in asking if task.done()]
        for task in asking:
            task.cancel()


@pytest.mark.parametrize("way", [by_closing, by_reset, by_http2_reset, by_death])
async def test_whoever_leaves_stops_the_provider_and_has_one_record(
    up: Up,
    provider: FakeOpenAI,
    way: Callable[[Up, str, str], Awaitable[Leave]],
):
    provider.script = ENDLESS
    leaver, other = await new_account(up), await new_account(up)
    limit = {"rate_limit_per_minute": 10_000}
    for account in (leaver, other):
        await up.call("PATCH", f"/api/v1/api-keys/{account.key_id}", limit, account.token)

    async def trial(number: int) -> float:
        mark = f"{way.__name__} {number} of {leaver.id}"
        leave = await way(up, leaver.key, mark)
        request = await eventually(lambda: asked(provider, mark), within=20)
        left_at = await leave()
        return await eventually(lambda: request.closed_at, within=10) - left_at

    took: list[float] = []
    async with load(up, other):
        for first in range(0, TRIALS, AT_ONCE):
            took += await asyncio.gather(*map(trial, range(first, first + AT_ONCE)))
    assert not patience.is_over(sorted(took)[int(0.99 * TRIALS) - 1], WITHIN)

    async def records() -> list[dict[str, object]]:
        got = await up.call("GET", "/v1/usage?page_size=200", token=leaver.token)
        return list(got.body["records"]) if len(got.body["records"]) >= TRIALS else []

    found = await eventually(records, within=15)
    assert len(found) == TRIALS
    assert {record["status"] for record in found} == {"cancelled"}
