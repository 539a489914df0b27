"""Checks of readiness, against real servers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from mesh.local import probe
from mesh.local.certificates import Identity, issue
from mesh.local.ports import free_ports
from mesh.local.ready import grpc_ready, http_ready, postgres_ready, tcp_ready

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks just enough HTTP."""
    request = await reader.read(1024)
    status = b"200 OK" if b" /ready " in request else b"503 No"
    writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")
    writer.close()


@pytest.fixture
async def http_port() -> AsyncIterator[int]:
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_port_is_ready_when_something_listens(http_port: int) -> None:
    assert await tcp_ready(http_port)()
    with pytest.raises(ConnectionRefusedError):
        await tcp_ready(free_ports(1)[0])()


async def test_only_200_is_ready(http_port: int) -> None:
    assert await http_ready(http_port, "/ready")()
    assert not await http_ready(http_port, "/other")()


async def test_what_is_no_postgresql_is_not_ready(http_port: int) -> None:
    assert not await postgres_ready(http_port)()


@pytest.fixture
def identities(tmp_path: Path) -> dict[str, Identity]:
    return issue(tmp_path, ["chat", "keys", "operator"])


async def serve(
    identity: Identity, health: health_aio.HealthServicer
) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    pair = (identity.key.read_bytes(), identity.cert.read_bytes())
    ca = identity.ca.read_bytes()
    credentials = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    return server, port


async def test_a_service_is_ready_when_its_health_says_so(identities: dict[str, Identity]) -> None:
    health = health_aio.HealthServicer()
    server, port = await serve(identities["chat"], health)
    check = grpc_ready("chat", port, identities["operator"])
    await health.set("", NOT_SERVING)
    before = await check()
    await health.set("", SERVING)

    assert (before, await check()) == (False, True)

    await server.stop(None)
    with pytest.raises(grpc.aio.AioRpcError):
        await check()


async def test_a_service_with_the_name_of_another_is_not_ready(
    identities: dict[str, Identity],
) -> None:
    health = health_aio.HealthServicer()
    await health.set("", SERVING)
    server, port = await serve(identities["keys"], health)

    with pytest.raises(grpc.aio.AioRpcError):
        await grpc_ready("chat", port, identities["operator"])()

    await server.stop(None)


async def test_a_process_is_asked_by_what_it_was_told_itself(
    identities: dict[str, Identity],
) -> None:
    health, own = health_aio.HealthServicer(), identities["chat"]
    server, port = await serve(own, health)
    told = {
        "LISTEN": f"0.0.0.0:{port}",
        **{"TLS_CERT_FILE": str(own.cert), "TLS_KEY_FILE": str(own.key)},
        "TLS_CA_FILE": str(own.ca),
    }
    await health.set("", NOT_SERVING)
    before = await probe.serves(told)
    await health.set("", SERVING)

    assert (before, await probe.serves(told)) == (False, True)

    await server.stop(None)
    with pytest.raises(grpc.aio.AioRpcError):
        await probe.serves(told)
