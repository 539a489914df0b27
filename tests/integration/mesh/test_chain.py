"""The chain around a handler that misbehaves, on a server of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from structlog.testing import capture_logs

from mesh.access import Caller, Rule
from mesh.calls.chain import Chain
from mesh.identity.identity import Identity

UNARY, STREAM = "/test.Test/Unary", "/test.Test/Stream"
# Without TLS a caller has no name.
RULES = {name: Rule(Caller.OPEN, frozenset({""}), limit=0.5) for name in (UNARY, STREAM)}
Handler = Callable[[Empty, Any], Any]


class Handlers(grpc.GenericRpcHandler):
    """Two methods that do the same: one answers, one streams."""

    def __init__(self, unary: Handler) -> None:
        self._unary = unary

    def service(self, handler_call_details: Any) -> Any:
        made = {"request_deserializer": Empty.FromString, "response_serializer": _serialize}
        if handler_call_details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(self._unary, **made)
        if handler_call_details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(self._stream, **made)
        return None

    async def _stream(self, request: Empty, context: Any) -> AsyncIterator[Empty]:
        yield await self._unary(request, context)


def _serialize(message: Empty) -> bytes:
    return message.SerializeToString()


@asynccontextmanager
async def serving(handler: Handler, *, chained: bool) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as nobody:
        chain = Chain(RULES, Identity(nobody, nobody))
        server = grpc.aio.server(interceptors=[chain] if chained else [])
        server.add_generic_rpc_handlers([Handlers(handler)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
                assert not chain.live
        finally:
            await server.stop(0)


async def code_of(
    channel: grpc.aio.Channel, method: str, seconds: float
) -> tuple[grpc.StatusCode, str]:
    request = Empty().SerializeToString()
    try:
        if method == UNARY:
            await channel.unary_unary(method)(request, timeout=seconds)
        else:
            async for _ in channel.unary_stream(method)(request, timeout=seconds):
                pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


async def stray(request: Empty, context: Any) -> Empty:
    raise asyncio.CancelledError


async def leaky(request: Empty, context: Any) -> Empty:
    raise RuntimeError("postgresql://user:canary@host")


async def never(request: Empty, context: Any) -> Empty:
    await asyncio.Event().wait()
    return Empty()


async def well(request: Empty, context: Any) -> Empty:
    return Empty()


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_a_call_that_is_served_well_ends_well(method: str):
    async with serving(well, chained=True) as channel:
        assert await code_of(channel, method, 5) == (grpc.StatusCode.OK, "")


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_a_stray_cancelled_error_ends_the_call(method: str):
    with capture_logs() as logged:
        async with serving(stray, chained=True) as channel:
            code, told = await code_of(channel, method, 5)
    assert code is grpc.StatusCode.INTERNAL
    assert [each["event"] for each in logged if each["log_level"] == "error"] == [told]


async def test_without_the_chain_it_leaves_the_caller_waiting():
    async with serving(stray, chained=False) as channel:
        code, _ = await code_of(channel, UNARY, 0.3)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_the_text_of_an_exception_stays_here(method: str):
    async with serving(leaky, chained=True) as channel:
        code, told = await code_of(channel, method, 5)
    assert code is grpc.StatusCode.INTERNAL
    assert "canary" not in told


async def test_without_the_chain_it_is_told_to_the_caller():
    async with serving(leaky, chained=False) as channel:
        _, told = await code_of(channel, UNARY, 5)
    assert "canary" in told


@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_a_call_takes_no_longer_than_its_rule_lets_it(method: str):
    began = asyncio.get_running_loop().time()
    async with serving(never, chained=True) as channel:
        code, told = await code_of(channel, method, 10)
    assert (code, told) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the time for this call ran out",
    )
    assert 0.4 < asyncio.get_running_loop().time() - began < 2


async def test_a_caller_who_leaves_ends_the_call():
    ended = asyncio.Event()

    async def waiting(request: Empty, context: Any) -> Empty:
        try:
            return await never(request, context)
        finally:
            ended.set()

    with capture_logs() as logged:
        async with serving(waiting, chained=True) as channel:
            call = channel.unary_unary(UNARY)(b"", timeout=0.2)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            await asyncio.wait_for(ended.wait(), 2)
    assert not [each for each in logged if each["log_level"] == "error"]
