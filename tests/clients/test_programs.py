"""Unmodified clients: what their users do, and what they get."""

import asyncio
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients import installed
from tests.clients.running import told
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.support import eventually

PROGRAMS = Path(__file__).parent / "programs"
PICTURE_BYTES = 3_000_000
CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
ARGUMENTS = {"tool": "weather", "arguments": {"city": "Rome"}}
ADA = {"name": "Ada", "age": 36}
TOO_LONG = {
    "message": "This model's maximum context length is 8192 tokens.",
    "type": "invalid_request_error",
    "param": "messages",
    "code": "context_length_exceeded",
}


@dataclass(frozen=True)
class Client:
    """A client, and the names that it has for errors of status 400, 401, 404 and 429."""

    program: str
    python: str = ""
    errors: tuple[str, str, str, str] = (
        "BadRequestError",
        "AuthenticationError",
        "NotFoundError",
        "RateLimitError",
    )

    def __str__(self) -> str:
        return self.program.partition(".")[0]

    def command(self, does: str, folder: Path) -> tuple[str | Path, ...]:
        if self.python:
            return (installed.python(self.python), PROGRAMS / self.program, does)
        # Node looks for modules beside a program.
        program = installed.node() / self.program
        shutil.copy(PROGRAMS / self.program, program)
        return (installed.programs("node") / "node", program, does)


CLIENTS = (
    Client("openai_python.py", "openai"),
    Client(
        "langchain_models.py",
        "langchain",
        (
            "OpenAIInvalidRequestError",
            "OpenAIAuthenticationError",
            "OpenAIModelNotFoundError",
            "OpenAIRateLimitError",
        ),
    ),
    Client(
        "pydantic_agents.py",
        "pydantic-ai",
        ("ModelContextWindowExceededError", "ModelAuthenticationError", "ModelNotFoundError", ""),
    ),
    Client("openai_node.mjs"),
    Client("ai_sdk.mjs", errors=("AI_APICallError",) * 4),
)
every = pytest.mark.parametrize("client", CLIENTS, ids=str)


@dataclass(frozen=True)
class Runs:
    """Runs the program of a client."""

    up: Up
    account: Account
    folder: Path

    async def __call__(self, client: Client, does: str, **more: str) -> Any:
        command = await asyncio.to_thread(client.command, does, self.folder)
        return await told(command, self.up, self.account, self.folder, **more)


@pytest.fixture
def runs(up: Up, account: Account, tmp_path: Path) -> Runs:
    return Runs(up, account, tmp_path)


@every
async def test_a_text_and_what_it_used(client: Client, runs: Runs, provider: FakeOpenAI):
    assert await runs(client, "text") == {"text": "Hello, world!", "tokens": 175}


@every
async def test_a_stream_comes_in_pieces(client: Client, runs: Runs, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b", "c"), pause=0.2)
    assert await runs(client, "stream") == {"pieces": ["a", "b", "c"]}


@every
async def test_a_tool_is_called(client: Client, runs: Runs, provider: FakeOpenAI):
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
    answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    provider.first.append(Script(answer=answer | {"choices": [choice]}))
    got = await runs(client, "tools")
    assert got.items() >= ARGUMENTS.items()
    if "text" in got:  # It goes on with what the tool said.
        assert got["text"] == "Hello, world!"
        assert provider.requests[-1].body["messages"][-1]["content"] == "rain"


@every
async def test_an_answer_has_the_form_that_was_asked_for(
    client: Client, runs: Runs, provider: FakeOpenAI
):
    provider.script = Script(pieces=(json.dumps(ADA),))
    assert await runs(client, "structured") == ADA
    assert provider.requests[-1].body["response_format"]["type"] == "json_schema"


@every
async def test_a_picture_of_three_megabytes_arrives(
    client: Client, runs: Runs, provider: FakeOpenAI
):
    got = await runs(client, "picture", PICTURE_BYTES=str(PICTURE_BYTES))
    assert got == {"text": "Hello, world!"}
    parts = provider.requests[-1].body["messages"][-1]["content"]
    (image,) = (part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    assert len(image) >= PICTURE_BYTES


@every
async def test_errors_have_their_class_and_code(client: Client, runs: Runs, provider: FakeOpenAI):
    bad, unknown, missing, _ = client.errors
    assert await runs(client, "wrong_key") == {
        "error": unknown,
        "status": 401,
        "code": "invalid_api_key",
    }
    assert await runs(client, "no_model") == {
        "error": missing,
        "status": 404,
        "code": "model_not_found",
    }
    assert not provider.requests
    provider.script = Script(status=400, body=json.dumps({"error": TOO_LONG}))
    assert await runs(client, "refused") == {
        "error": bad,
        "status": 400,
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize("client", [each for each in CLIENTS if each.errors[3]], ids=str)
async def test_a_limit_of_the_provider_is_a_limit(client: Client, runs: Runs, provider: FakeOpenAI):
    provider.script = Script(status=429, headers={"Retry-After": "1"})
    got = await runs(client, "limited")
    assert (got["error"], got["status"]) == (client.errors[3], 429)


@every
async def test_who_is_limited_comes_again_by_itself(
    client: Client, runs: Runs, provider: FakeOpenAI
):
    provider.first.append(Script(status=429, headers={"Retry-After": "1"}))
    assert (await runs(client, "retry"))["text"] == "Hello, world!"
    assert len(provider.requests) == 2


@every
async def test_what_is_aborted_ends_at_the_provider(
    client: Client, runs: Runs, provider: FakeOpenAI
):
    provider.script = Script(pieces=("piece",) * 300, pause=0.1)
    assert await runs(client, "abort") == {"first": "piece"}
    left = time.monotonic()
    request = provider.requests[0]
    await eventually(lambda: request.closed_at is not None, within=5)
    assert request.closed_at < left + 5
