"""A client that goes away stops its provider, over each way of calling."""

import asyncio
import json
import time

import pytest

from tests import patience
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.support import eventually

ENDLESS = Script(pieces=("word ",) * 2_000, pause=0.01)


@pytest.mark.parametrize("path", ["/chat/stream", "/chat"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_hangs_up_stops_the_provider_within_250_ms(
    up: Up, account: Account, provider: FakeOpenAI, path: str, how: str
):
    provider.script = ENDLESS
    body = json.dumps({"message": "Go", "model": "fast"}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {account.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", up.gateway)
    writer.write(head.encode() + body)
    asked = await eventually(lambda: provider.requests and provider.requests[0])
    await eventually(lambda: asked.sent > 5)
    left_at = time.monotonic()
    if how == "reset":
        writer.transport.abort()
    else:
        writer.close()
    closed_at = await eventually(lambda: asked.closed_at)
    assert not patience.is_over(closed_at - left_at, 0.25)

    async def recorded() -> list[dict[str, object]]:
        got = await up.call("GET", f"/api/v1/usage/{account.key_id}", token=account.token)
        return list(got.body["records"])

    (record,) = await eventually(recorded)
    assert (record["status"], record["basis"]) == ("cancelled", "estimated")
    assert 0 < int(str(record["completion_tokens"])) <= asked.sent
