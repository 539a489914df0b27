"""A generation is followed, resumed where its stream was cut, and cancelled from any replica, over REST."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests import patience
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.replica import replica
from tests.mesh.running import Account, Up
from tests.support import eventually

PIECES = tuple(f"w{number} " for number in range(300))
WHOLE = "".join(PIECES)
CUTS = random.Random(11).sample(range(1, 300), 20)
# What was read of a stream that was cut: the text, and the place of the last event.
Head = tuple[str, int]


@pytest.fixture(scope="module")
async def edges(up: Up, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Up]]:
    """Two edges, each with a replica of chat that the other does not know."""
    async with replica(up, tmp_path_factory.mktemp("second")) as second:
        yield {"first": up, "second": second}


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


async def read(up: Up, path: str, account: Account) -> tuple[str, dict[str, Any]]:
    """The text of a whole stream, and its last event."""
    got = [event async for event in events(up, path, account)]
    return "".join(event.get("token", "") for event in got), got[-1]


async def begun(up: Up, account: Account) -> str:
    """The path of the events of a generation that runs on when its reader leaves."""
    body = {"message": "Go", "model": "fast", "on_disconnect": "finish"}
    headers = {"X-API-Key": account.key}
    async with up.http.post(f"{up.url}/chat/stream", json=body, headers=headers) as got:
        first = json.loads((await got.content.readline())[6:])
        assert got.headers["x-generation-id"] == first["generation_id"]
    return f"/v1/generations/{first['generation_id']}/events"


async def cut(up: Up, account: Account, path: str, at: int) -> Head:
    """What one has who leaves at event `at`."""
    text, place = "", 0
    async for event in events(up, path, account):
        text, place = text + event.get("token", ""), event["seq"]
        if place >= at or "done" in event:
            break
    return text, place


async def resumed(up: Up, account: Account, path: str, head: Head) -> str:
    """The text as one gets it who has `head`, and comes again by the header."""
    text, place = head
    last: dict[str, Any] = {}
    async for event in events(up, path, account, **{"Last-Event-ID": str(place)}):
        assert event["seq"] > place or "done" in event  # Which is told again, if asked for.
        text, last = text + event.get("token", ""), event
    assert last["done"] is True
    assert last["full_text"] == WHOLE
    return text


@pytest.mark.parametrize("then", ["first", "second"])
@pytest.mark.parametrize("here", ["first", "second"])
async def test_cut_on_one_replica_and_resumed_on_any_the_text_is_whole(
    edges: dict[str, Up], account: Account, provider: FakeOpenAI, here: str, then: str
):
    provider.script = Script(pieces=PIECES, pause=0.01)
    path = await begun(edges["first"], account)
    sent: list[int] = []

    async def cut_and_resumed(at: int) -> tuple[Head, str]:
        head = await cut(edges[here], account, path, at)
        sent.append(provider.requests[0].sent)
        return head, await resumed(edges[then], account, path, head)

    running = await asyncio.gather(*map(cut_and_resumed, CUTS))
    assert [text for _, text in running] == [WHOLE] * len(CUTS)
    assert sum(so_far < len(PIECES) for so_far in sent) > len(CUTS) / 2  # It ran meanwhile.
    # And again when it is over, in the end by the query.
    for head, _ in running:
        assert await resumed(edges[then], account, path, head) == WHOLE
    rest, _ = await read(edges[then], f"{path}?after_seq={head[1]}", account)
    assert head[0] + rest == WHOLE


@pytest.mark.parametrize(("here", "there"), [("first", "second"), ("second", "first")])
async def test_cancelled_by_another_replica_the_provider_is_stopped_at_once(
    edges: dict[str, Up], account: Account, provider: FakeOpenAI, here: str, there: str
):
    provider.script = Script(pieces=("word ",) * 2_000, pause=0.01)
    path = await begun(edges[here], account)
    readers = [asyncio.create_task(read(up, path, account)) for up in edges.values()]
    await eventually(lambda: provider.requests[0].sent > 5)
    asked_at = time.monotonic()
    call = edges[there].call("POST", path.replace("/events", ":cancel"), {}, account.key)
    cancelling = asyncio.create_task(call)
    closed_at = await eventually(lambda: provider.requests[0].closed_at)
    assert not patience.is_over(closed_at - asked_at, 0.25)
    ended = (await cancelling).body
    assert (ended["status"], ended["reason"]) == ("cancelled", "GENERATION_CANCELLED")
    for text, last in await asyncio.gather(*readers):
        assert last["cancelled"] is True
        assert text == last["full_text"] == ended["text"]


async def test_the_place_in_the_header_has_to_be_one(up: Up, account: Account):
    made = await up.call("POST", "/chat", {"message": "a b", "model": "echo"}, account.key)
    path = f"/v1/generations/{made.body['generation_id']}/events"
    answer = await up.call("GET", path, token=account.key, **{"Last-Event-ID": "nowhere"})
    assert (answer.status, answer.reason) == (400, "INVALID_FIELDS")
