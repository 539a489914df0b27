"""A mock provider that costs next to nothing: OpenAI's format, from bytes made once.

Run as `python -m bench.provider PORT`. The model `short` answers 20 tokens,
`burst` 100 tokens in one write, `paced` 100 tokens, one every 10 ms.
"""

import asyncio
import json
import sys

import uvloop

TOKENS = {"short": 20, "burst": 100, "paced": 100}
PACE = 0.010
TOKEN = "tok "
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(body: dict[str, object]) -> bytes:
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps(common | body).encode() + b"\n\n"


def _delta(delta: dict[str, str], finish: str | None = None) -> bytes:
    return _event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _ending(tokens: int) -> bytes:
    usage = _event({"choices": [], "usage": _usage(tokens)})
    return _framed(_delta({}, "stop") + usage + b"data: [DONE]\n\n") + b"0\r\n\r\n"


_PIECE = _framed(_delta({"role": "assistant", "content": TOKEN}))
_STREAMS = {
    model: _HEAD + _framed(_delta({"role": "assistant", "content": TOKEN}) * count) + _ending(count)
    for model, count in TOKENS.items()
}


def _whole(model: str) -> bytes:
    count = TOKENS[model]
    message = {"role": "assistant", "content": TOKEN * count}
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "mock",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _usage(count),
        }
    ).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_WHOLE = {model: _whole(model) for model in TOKENS}


class _Connection(asyncio.Protocol):
    """One connection; requests come one after another, each in one or a few reads."""

    def __init__(self) -> None:
        self._data = b""
        self._pacing: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # it is one

    def connection_lost(self, _: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, body = self._data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)
        if not separator or len(body) < length:
            return
        self._data = b""
        request = json.loads(body)
        model = request["model"]
        if not request.get("stream"):
            self._transport.write(_WHOLE[model])
        elif model == "paced":
            self._pacing = asyncio.create_task(self._pace())
        else:
            self._transport.write(_STREAMS[model])

    async def _pace(self) -> None:
        self._transport.write(_HEAD)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for at in range(TOKENS["paced"]):
            await asyncio.sleep(began + at * PACE - loop.time())
            self._transport.write(_PIECE)
        self._transport.write(_ending(TOKENS["paced"]))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
