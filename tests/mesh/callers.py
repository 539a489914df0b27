"""Ordinary callers, who have to be served as ever while others attack the mesh."""

import asyncio
import json
import time
from collections.abc import Sequence

from tests.mesh.running import Account, Up, new_account

CALLERS = 20


async def new_callers(up: Up, count: int = CALLERS) -> list[Account]:
    """So many accounts, each with a key whose limit of calls a minute no test comes to."""
    accounts = [await new_account(up) for _ in range(count)]
    limit = {"rate_limit_per_minute": 100_000}
    for each in accounts:
        path = f"/api/v1/api-keys/{each.key_id}"
        assert (await up.call("PATCH", path, limit, each.token)).status == 200
    return accounts


async def short_answer(up: Up, key: str) -> float:
    """Seconds that a stream of echo takes, which has to be whole."""
    began = time.monotonic()
    body = {"message": "one two three four five", "model": "echo", "store": False}
    answer = await up.call("POST", "/chat/stream", body, key)
    assert answer.status == 200, answer.text
    last = json.loads(answer.text.strip().rsplit("data: ", 1)[1])
    assert last["done"], last
    return time.monotonic() - began


async def slowest_of(up: Up, callers: Sequence[Account], rounds: int = 1) -> float:
    """Seconds that the slowest short answer takes, in rounds of one to each caller at once."""
    slowest = 0.0
    for _ in range(rounds):
        slowest = max(
            slowest, *await asyncio.gather(*(short_answer(up, each.key) for each in callers))
        )
    return slowest
