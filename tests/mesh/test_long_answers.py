"""Answers without end: what they take of memory, what they cost, and what others notice."""

import asyncio
import json

import psutil
import pytest

from tests import patience
from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.callers import slowest_of
from tests.mesh.running import Account, Up
from tests.support import eventually

MIB = 1 << 20
# What all of chat may take whatever is streamed, as docs/deploy.md says.
MOST_RESIDENT_BYTES = 512 * MIB
# And what it keeps of that when the streams have ended.
MOST_KEPT_BYTES = 96 * MIB


def chunk(delta: dict, **more: object) -> bytes:
    told = {"choices": [{"index": 0, "delta": delta, **more}]}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def of_a_tool(size: int) -> bytes:
    return chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x" * size}}]})


ARGUMENTS = of_a_tool(1_000) * 64
LOGPROBS = (
    chunk(
        {"content": "word "},
        logprobs={
            "content": [
                {"token": f"{n}", "logprob": -1.5, "bytes": [1, 2, 3], "top_logprobs": []}
                for n in range(20)
            ]
        },
    )
    * 32
)


async def pid_of_chat(up: Up) -> int:
    _, told = await up.khesht("status", "--json")
    return next(row["pid"] for row in json.loads(told) if row["name"] == "chat")


async def long_answer(up: Up, key: str) -> bytes:
    """The end of a stream without a limit, in OpenAI's format."""
    body = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "long"}]}
    headers = {"Authorization": f"Bearer {key}"}
    end = b""
    url = f"{up.url}/v1/chat/completions"
    async with up.http.post(url, json=body, headers=headers, timeout=None) as answer:
        assert answer.status == 200
        async for data in answer.content.iter_any():
            end = (end + data)[-2_000:]
    return end


class Resident:
    """Watches how much memory a process takes at most."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.first = self.most = self.now

    @property
    def now(self) -> int:
        return int(self._process.memory_info().rss)

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("piece", "times", "streams"),
    # 300 MB of pieces of calls of tools, and log probabilities.
    # The last is what docs/generations.md promises.
    [
        (ARGUMENTS, 4_500, 1),
        (ARGUMENTS, 4_500, 5),
        (LOGPROBS, 320, 10),
        (LOGPROBS, 100, 50),
    ],
    ids=["tool calls", "tool calls of five", "log probabilities of ten", "of fifty"],
)
async def test_a_long_answer_ends_alone_and_takes_no_memory_with_it(
    up: Up, account: Account, ordinary: list[Account], provider: FakeOpenAI, piece, times, streams
):
    quiet = await slowest_of(up, ordinary)
    raw = Script(pieces=(), raw=piece, times=times, end=End.WITHOUT_USAGE)
    provider.script = raw
    resident = Resident(await pid_of_chat(up))
    watching = asyncio.create_task(resident.watch())
    attack = [asyncio.create_task(long_answer(up, account.key)) for _ in range(streams)]
    slowest = 0.0
    while not all(each.done() for each in attack):
        slowest = max(slowest, await slowest_of(up, ordinary))
    watching.cancel()
    ends = await asyncio.gather(*attack)
    size = len(piece) * times
    for end in ends:
        if size > 64 * MIB:
            assert b"REPLY_TOO_LARGE" in end
        else:
            assert end.endswith(b"data: [DONE]\n\n")
    assert resident.most < MOST_RESIDENT_BYTES
    await eventually(lambda: resident.now < resident.first + MOST_KEPT_BYTES)
    # Of several at once the provider of this test takes all of the machine by itself.
    assert streams > 1 or not patience.is_over(slowest - quiet, 1.0), (quiet, slowest)

    async def recorded() -> list[dict]:
        told = await up.call("GET", "/v1/usage?page_size=200", token=account.key)
        found = [each for each in told.body["records"] if each["model"] != "echo"]
        return found if len(found) >= streams else []

    records = await eventually(recorded, 20)
    assert len(records) == streams
    assert all(each["completion_tokens"] > 2_500 for each in records)
    code, told = await up.khesht("audit")
    assert code == 0, told
