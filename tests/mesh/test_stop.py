"""`khesht up` is told to stop while it streams: every stream is told how it ends."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Up, new_account, started_with
from tests.support import eventually

PIECES = 200


async def told_until_the_end(up: Up, key: str, events: list[dict[str, Any]]) -> None:
    """Reads one stream into `events`. Raises ClientError when it is cut."""
    body = {"message": "Go on", "model": "fast"}
    headers = {"Authorization": f"Bearer {key}"}
    async with up.http.post(f"{up.url}/chat/stream", json=body, headers=headers) as got:
        async for line in got.content:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))


async def stopped_while_streaming(
    home: Path, provider: FakeOpenAI, signals: int
) -> tuple[list[dict[str, Any]], Up]:
    """The events of a stream that ran when the mesh got the first of `signals`."""
    events: list[dict[str, Any]] = []
    async with started_with(
        provider,
        home,
    ) as up:
        account = await new_account(up)
        provider.script = Script(pieces=("word ",) * PIECES, pause=0.02)
        reading = asyncio.create_task(told_until_the_end(up, account.key, events))
        await eventually(lambda: len(events) > 2)
        for number in range(signals):
            up.process.send_signal(signal.SIGINT)
            await eventually(lambda number=number: number or "once more" in "".join(up.output))
        await reading
        await asyncio.wait_for(up.process.wait(), 30)
    return events, up


async def test_a_stream_that_runs_is_finished_before_the_mesh_stops(
    tmp_path: Path, provider: FakeOpenAI
):
    events, up = await stopped_while_streaming(tmp_path / "home", provider, signals=1)
    assert events[-1]["done"] is True
    assert events[-1]["full_text"] == "word " * PIECES
    assert up.process.returncode == 0


async def test_a_second_signal_ends_it_now_and_it_is_told(tmp_path: Path, provider: FakeOpenAI):
    events, up = await stopped_while_streaming(tmp_path / "home", provider, signals=2)
    assert events[-1]["error"]["reason"] == "DRAINING"
    assert len(events) < PIECES
    assert up.process.returncode == 0
