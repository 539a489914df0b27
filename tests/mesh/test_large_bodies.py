"""Pictures and agents: bodies of megabytes go through, and leave the others their room."""

import asyncio
import base64
import json
import os
from typing import Any

import grpc
import psutil
import psycopg
import pytest
from google.api.httpbody_pb2 import HttpBody

from khesht.chat.v1 import completions_service_pb2 as pb
from khesht.chat.v1.completions_service_pb2_grpc import CompletionsServiceStub
from tests import patience
from tests.fake_openai import FakeOpenAI
from tests.mesh.callers import slowest_of
from tests.mesh.running import Account, Up, new_account

MIB = 1 << 20
PATH = "/v1/chat/completions"
# What README.md and docker-compose.yml allow the processes, in MiB of memory.
MOST_MIB = {"edge": 1_792, "chat": 1_024}


def asked(size: int, **more: Any) -> dict[str, Any]:
    """A request with a picture of `size` bytes."""
    url = f"data:image/png;base64,{base64.b64encode(os.urandom(size)).decode()}"
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"model": "fast", "messages": [{"role": "user", "content": content}], **more}


def tools(count: int, size: int) -> list[dict[str, Any]]:
    """Tools with descriptions of `size` bytes."""
    made = [{"name": f"f{n}", "description": "x" * size} for n in range(count)]
    return [{"type": "function", "function": each | {"parameters": {}}} for each in made]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_picture_of_3_mb_and_80_tools_of_10_kb_pass(
    up: Up, account: Account, provider: FakeOpenAI, stream: bool
):
    body = asked(3_000_000, tools=tools(80, 10_000))
    answer = await up.call("POST", PATH, body | {"stream": stream}, account.key)
    assert answer.status == 200, answer.text
    sent = provider.requests[0].body
    assert (sent["messages"], sent["tools"]) == (body["messages"], body["tools"])


async def test_a_body_without_a_length_passes_too(up: Up, account: Account, provider: FakeOpenAI):
    body = json.dumps(asked(1_000_000)).encode()

    async def pieces():
        for at in range(0, len(body), 100_000):
            yield body[at : at + 100_000]

    headers = {"Authorization": f"Bearer {account.key}", "Content-Type": "application/json"}
    async with up.http.post(up.url + PATH, data=pieces(), headers=headers) as answer:
        assert answer.status == 200


async def test_native_callers_send_pictures_too(up: Up, account: Account, provider: FakeOpenAI):
    body = HttpBody(content_type="application/json", data=json.dumps(asked(3_000_000)).encode())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        stream = CompletionsServiceStub(channel).CreateChatCompletion(
            pb.CreateChatCompletionRequest(body=body),
            metadata=(("authorization", f"Bearer {account.key}"),),
            timeout=20,
        )
        assert b"Hello" in b"".join([each.body.data async for each in stream])


@pytest.mark.parametrize(
    ("path", "most"),
    [
        (PATH, 20 * MIB),
        ("/chat", 20 * MIB),
        ("/chat/stream", 20 * MIB),
        ("/chat/conversation", 20 * MIB),
        ("/chat/background", 20 * MIB),
        ("/api/chat", 20 * MIB),
        ("/api/v1/chat", 20 * MIB),
        ("/api/v1/chat/stream", 20 * MIB),
        ("/api/v1/summarize", 20 * MIB),
        ("/api/v1/translate", 20 * MIB),
        ("/items", 256 << 10),
        ("/chats", 256 << 10),
        ("/auth/login", 256 << 10),
        ("/api/v1/api-keys", 256 << 10),
    ],
)
async def test_only_what_takes_content_takes_megabytes(up: Up, account: Account, path, most):
    for size, refused in ((most, False), (most + 1, True)):
        body = b'{"nonsense": 1}' + b" " * (size - 15)
        answer = await up.call("POST", path, body, account.token)
        assert (answer.status == 413) == refused, answer.text
        if refused:
            assert answer.reason == "TOO_LARGE"
            assert ("param" in answer.body["error"]) == (path == PATH)


async def test_no_picture_is_stored(up: Up, account: Account, provider: FakeOpenAI):
    body = asked(3_000_000)
    answer = await up.call("POST", PATH, body, account.key, **{"Idempotency-Key": "a-picture"})
    assert answer.status == 200
    with psycopg.connect(await up.administrator()) as connection:
        query = "SELECT sum(pg_column_size(g.*)) FROM chat.generations g WHERE user_id = %s"
        row = connection.execute(query, [account.id]).fetchone()
    assert row is not None
    assert 0 < row[0] < 10_000


async def test_forty_pictures_at_once_leave_memory_and_the_others_alone(
    up: Up, ordinary: list[Account], provider: FakeOpenAI
):
    body = json.dumps(asked(10 * MIB, stream=True)).encode()
    senders = [await new_account(up) for _ in range(8)]
    processes = {
        name: psutil.Process(row["pid"])
        for name, row in (await up.statuses()).items()
        if name in MOST_MIB
    }
    peak = dict.fromkeys(processes, 0)

    async def watch() -> None:
        while True:
            for name, process in processes.items():
                peak[name] = max(peak[name], process.memory_info().rss // MIB)
            await asyncio.sleep(0.02)

    async def others() -> None:
        while True:  # Each answer has to be whole.
            await slowest_of(up, ordinary[:5])

    watching, calling = asyncio.create_task(watch()), asyncio.create_task(others())
    async with asyncio.timeout(patience.patient(60)):
        sent = (up.call("POST", PATH, body, senders[n % 8].key) for n in range(40))
        answers = await asyncio.gather(*sent)
    for task in (watching, calling):
        assert not task.done(), task.exception()
        task.cancel()
    assert [answer.status for answer in answers] == [200] * 40
    assert all(answer.text.endswith("data: [DONE]\n\n") for answer in answers)
    assert all(peak[name] < most for name, most in MOST_MIB.items()), peak
