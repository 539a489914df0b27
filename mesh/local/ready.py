"""Checks of whether a process of this machine serves; one answers False, or raises, if not."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from mesh.local.certificates import Identity, dns_name

Check = Callable[[], Awaitable[bool]]

_PROTOCOL_3_0 = 3 << 16
_SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse(status=SERVING)


def tcp_ready(port: int, host: str = "127.0.0.1") -> Check:
    """Whether something accepts connections on `port` of `host`."""

    async def check() -> bool:
        async with _connection(port, host):
            return True

    return check


def postgres_ready(port: int) -> Check:
    """Whether PostgreSQL asks for a password; one that starts or stops answers with an error.

    As pg_isready does it, without a driver in this process. See "Message Formats" in
    PostgreSQL's manual.
    """
    parameters = b"user\0khesht\0database\0postgres\0\0"
    startup = struct.pack("!ii", 8 + len(parameters), _PROTOCOL_3_0) + parameters

    async def check() -> bool:
        async with _connection(port) as (reader, writer):
            writer.write(startup)
            return await reader.read(1) == b"R"

    return check


def http_ready(port: int, path: str) -> Check:
    """Whether GET `path` is answered 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()

    async def check() -> bool:
        async with _connection(port) as (reader, writer):
            writer.write(request)
            return (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    return check


async def http_get(socket: Path, path: str) -> str:
    """The answer to GET `path` on a Unix socket, with its headers. Raises OSError."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    return answer.decode()


def grpc_ready(name: str, port: int, caller: Identity) -> Check:
    """Whether the service `name` on `port` says SERVING, asked over mTLS as `caller`.

    By the standard grpc.health.v1. The channel is opened once and lives as long as the check.
    """
    health: Callable[..., Awaitable[bytes]] | None = None

    async def check() -> bool:
        nonlocal health
        health = health or _health_method(name, port, caller)
        return await health(b"", timeout=1) == _SERVING

    return check


def _health_method(name: str, port: int, caller: Identity) -> Callable[..., Awaitable[bytes]]:
    # Imported here because it is large and other checks do without; bytes in and out, because
    # that spares the message classes.
    import grpc

    credentials = grpc.ssl_channel_credentials(
        caller.ca.read_bytes(), caller.key.read_bytes(), caller.cert.read_bytes()
    )
    options = (
        ("grpc.ssl_target_name_override", dns_name(name)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.enable_http_proxy", 0),
    )
    channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
    return channel.unary_unary("/grpc.health.v1.Health/Check")


@contextlib.asynccontextmanager
async def _connection(
    port: int, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
