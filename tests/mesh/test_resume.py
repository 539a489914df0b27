"""A stream of server-sent events that was cut goes on where it was cut."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up

PIECES = tuple(f"w{number} " for number in range(300))
CUTS = random.Random(11).sample(range(1, 300), 20)


async def events(
    up: Up, path: str, account: Account, **headers: str
) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; leaving them cuts the connection."""
    headers["X-API-Key"] = account.key
    async with up.http.get(up.url + path, headers=headers) as got:
        assert got.headers["content-type"] == "text/event-stream"
        async for line in got.content:
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


async def cut_and_resumed(up: Up, account: Account, path: str, cut: int) -> str:
    """The text as one gets it who leaves at event `cut`, and comes again by the header."""
    text, place = "", 0
    async for event in events(up, path, account):
        text, place = text + event.get("token", ""), event["seq"]
        if place >= cut or "done" in event:
            break
    last: dict[str, Any] = {}
    async for event in events(up, path, account, **{"Last-Event-ID": str(place)}):
        assert event["seq"] > place or "done" in event  # Which is told again, if asked for.
        text, last = text + event.get("token", ""), event
    assert last["done"] is True
    assert last["full_text"] == "".join(PIECES)
    return text


async def test_cut_at_any_place_the_text_is_whole(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=PIECES, pause=0.005)
    body = {"message": "Go", "model": "fast", "on_disconnect": "finish"}
    headers = {"X-API-Key": account.key}
    async with up.http.post(f"{up.url}/chat/stream", json=body, headers=headers) as got:
        first = json.loads((await got.content.readline())[6:])
        assert got.headers["x-generation-id"] == first["generation_id"]
    path = f"/v1/generations/{first['generation_id']}/events"
    texts = await asyncio.gather(*(cut_and_resumed(up, account, path, cut) for cut in CUTS))
    assert texts == ["".join(PIECES)] * len(CUTS)
    # And again when it is over, now by the query.
    rest = [event async for event in events(up, f"{path}?after_seq={CUTS[0]}", account)]
    left = "".join(event.get("token", "") for event in rest)
    assert 0 < len(left) < len("".join(PIECES))
    assert "".join(PIECES).endswith(left)


async def test_the_place_in_the_header_has_to_be_one(up: Up, account: Account):
    made = await up.call("POST", "/chat", {"message": "a b", "model": "echo"}, account.key)
    path = f"/v1/generations/{made.body['generation_id']}/events"
    answer = await up.call("GET", path, token=account.key, **{"Last-Event-ID": "nowhere"})
    assert (answer.status, answer.reason) == (400, "INVALID_FIELDS")
