"""A provider for tests: a real HTTP server that speaks OpenAI's format, by a script."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from aiohttp import web

SHIPPED = Path(__file__).parent.parent / "services/chat/models.toml"


class End(StrEnum):
    """How a scripted stream ends."""

    WHOLE = "whole"
    WITHOUT_USAGE = "without usage"
    WITHOUT_DONE = "without [DONE]"
    CUT = "cut by a reset"
    EARLY = "a clean end before the end"
    MALFORMED = "a chunk that is no JSON"
    ERROR = "an error chunk"
    SILENCE = "nothing more"


# For the end of a models file: what one test makes of the provider touches no other test.
UNBROKEN = "".join(
    f"\n[providers.{name}]\nbreaker_failures = 1000\n" for name in ("openai", "groq", "huggingface")
)


def models_file(folder: Path, more: str = UNBROKEN) -> str:
    """The path of the models file that is shipped, with `more` behind it, in `folder`."""
    file = folder / "models.toml"
    file.write_text(SHIPPED.read_text() + more)
    return str(file)


ECHO = "<the key that came>"


@dataclass(frozen=True)
class Script:
    """What the provider does with a request. Times are seconds.

    It is silent for `headers_after` before its headers, then for `first_after`, and for
    `pause` before each piece. `reset` ends the connection before any byte; `raw` is sent
    before all pieces, so many `times`. Where `exact` has any, it is all that is sent, with `status`
    and `headers`, whatever was asked: bytes as they are, each in a write of its own, and pauses
    between them; None at its end breaks the connection. `choices` are those of whole chunks, `answer` is a whole answer. In
    `body`, `raw` and `headers`, ECHO stands for the key that came with the request. One that
    `obeys` ends at the limit of tokens that it is sent: a word is a token.
    """

    pieces: tuple[str, ...] = ("Hello", ",", " world", "!")
    deltas: tuple[dict[str, Any], ...] = ()
    choices: tuple[dict[str, Any], ...] = ()
    answer: dict[str, Any] = field(default_factory=dict)
    headers_after: float = 0.0
    first_after: float = 0.0
    pause: float = 0.0
    reset: bool = False
    raw: bytes = b""
    times: int = 1
    exact: tuple[bytes | float | None, ...] = ()
    end: End = End.WHOLE
    status: int = 200
    body: str = "{}"
    headers: dict[str, str] = field(default_factory=dict)
    model: str = "gpt-4o-mini-2024-07-18"
    finish_reason: str = "stop"
    tokens: tuple[int, int] = (25, 150)
    obeys: bool = False

    def obeying(self, limits: list[int]) -> "Script":
        """The same for a request of these limits."""
        if not self.obeys or not limits or self.tokens[1] <= min(limits):
            return self
        pieces, words = [], 0
        for piece in self.pieces:
            words += len(piece.split())
            if words > min(limits):
                break
            pieces.append(piece)
        tokens = (self.tokens[0], min(limits))
        return replace(self, pieces=tuple(pieces), tokens=tokens, finish_reason="length")


@dataclass
class Request:
    """A request that came, and what became of it. Times are of `time.monotonic`."""

    headers: dict[str, str]
    body: dict[str, Any]
    sent: int = 0
    closed_at: float | None = None


class FakeOpenAI:
    """Serves `/v1/chat/completions` on a free port.

    The first requests are answered by `first`, in its order, all others by `script`.
    """

    def __init__(self) -> None:
        self.script = Script()
        self.first: list[Script] = []
        self.requests: list[Request] = []
        self.url = ""

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["FakeOpenAI"]:
        """Itself on `port`, or on any free one, until the end of the block."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, http: web.Request) -> web.StreamResponse:
        script = _echoing(self.first.pop(0) if self.first else self.script, http)
        request = Request(dict(http.headers), await http.json())
        limits = [request.body.get(name) for name in ("max_tokens", "max_completion_tokens")]
        script = script.obeying([each for each in limits if isinstance(each, int)])
        self.requests.append(request)
        try:
            return await self._scripted(http, request, script)
        except (asyncio.CancelledError, ConnectionError):
            request.closed_at = time.monotonic()
            raise

    async def _scripted(
        self, http: web.Request, request: Request, script: Script
    ) -> web.StreamResponse:
        await asyncio.sleep(script.headers_after)
        if script.reset:
            assert http.transport is not None
            http.transport.abort()
            return web.Response()
        if script.exact:
            return await _exactly(http, script)
        if script.status != 200:
            body = script.body.encode(errors="surrogateescape")  # U+DCFF is a byte that is no text.
            return web.Response(status=script.status, body=body, headers=script.headers)
        if not request.body.get("stream"):
            return await _in_two_parts(http, json.dumps(script.answer or _whole(script)).encode())
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(http)
        await asyncio.sleep(script.first_after)
        if script.raw:
            for _ in range(script.times):
                await response.write(script.raw)
                request.sent += 1
        for choice in script.choices:
            await _write(response, _common(script) | {"choices": [choice]})
        for delta in script.deltas or [{"content": piece} for piece in script.pieces]:
            if script.pause:
                await asyncio.sleep(script.pause)
            await _chunk(response, script, delta)
            request.sent += 1
        await self._end(http, response, script)
        return response

    async def _end(self, http: web.Request, response: web.StreamResponse, script: Script) -> None:
        assert http.transport is not None
        match script.end:
            case End.CUT:
                http.transport.abort()
                return
            case End.EARLY:
                http.transport.close()
                return
            case End.MALFORMED:
                await response.write(b'data: {"choices": [}\n\n')
                return
            case End.ERROR:
                await response.write(b'data: {"error": {"message": "out of memory"}}\n\n')
                return
            case End.SILENCE:
                await asyncio.Event().wait()
        await _chunk(response, script, {}, finish_reason=script.finish_reason)
        if script.end is not End.WITHOUT_USAGE:
            read, written = script.tokens
            usage = {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
            }
            await _write(response, _common(script) | {"choices": [], "usage": usage})
        if script.end is not End.WITHOUT_DONE:
            await response.write(b"data: [DONE]\n\n")


def _echoing(script: Script, http: web.Request) -> Script:
    key = http.headers.get("Authorization", "").removeprefix("Bearer ")
    return replace(
        script,
        body=script.body.replace(ECHO, key),
        raw=script.raw.replace(ECHO.encode(), key.encode()),
        headers={name: value.replace(ECHO, key) for name, value in script.headers.items()},
    )


async def _exactly(http: web.Request, script: Script) -> web.StreamResponse:
    headers = {"Content-Type": "text/event-stream", **script.headers}
    response = web.StreamResponse(status=script.status, headers=headers)
    await response.prepare(http)
    for each in script.exact:
        match each:
            case bytes():
                await response.write(each)
            case None:
                assert http.transport is not None
                http.transport.abort()
            case _:
                await asyncio.sleep(each)
    return response


def cut(data: bytes, *sizes: int, pause: float = 0.0) -> tuple[bytes | float, ...]:
    """`data` for `Script.exact`, in pieces of these sizes in turn, with `pause` seconds between."""
    pieces: list[bytes | float] = []
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces += [data[at : at + size], pause]
        at, turn = at + size, turn + 1
    return tuple(pieces)


async def _in_two_parts(http: web.Request, body: bytes) -> web.StreamResponse:
    """As larger answers come: no reader may take the first part for all."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(http)
    for part in (body[:20], body[20:]):
        await response.write(part)
        await asyncio.sleep(0.02)
    return response


def _whole(script: Script) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(script.pieces)}
    read, written = script.tokens
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": script.model,
        "choices": [{"index": 0, "message": message, "finish_reason": script.finish_reason}],
        "usage": {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        },
    }


async def _chunk(
    response: web.StreamResponse,
    script: Script,
    delta: dict[str, Any],
    finish_reason: str | None = None,
) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    await _write(response, _common(script) | {"choices": [choice]})


def _common(script: Script) -> dict[str, object]:
    kind = "chat.completion.chunk"
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": script.model}


async def _write(response: web.StreamResponse, chunk: dict[str, object]) -> None:
    await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
