"""Calls of any RPC by its name, and what became of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from mesh import status
from tests.contract.described import Method, methods
from tests.harness import Mesh
from tests.integration.conftest import Person

_CALLERS = {"KeysInternalService": "chat", "UsageInternalService": "chat"}
UNARY = [method for method in methods() if not method.streams]
STREAMS = [method for method in methods() if method.streams]


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its status, the reason that the service gave, and all else it told."""

    code: grpc.StatusCode
    reason: str = ""
    text: str = ""


@asynccontextmanager
async def channel(
    mesh: Mesh, service: str, credentials: grpc.ChannelCredentials
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel that asks nobody's health: it reaches services that turn it away."""
    options = [("grpc.ssl_target_name_override", f"{service}.khesht.internal")]
    address = mesh.addresses[service]
    async with grpc.aio.secure_channel(address, credentials, options=options) as opened:
        yield opened


def credentials_of(mesh: Mesh, peer: str) -> grpc.ChannelCredentials:
    """Those of a process of the mesh."""
    own = mesh.certificate(peer)
    return grpc.ssl_channel_credentials(own.authority, own.key, own.chain)


async def outcome(
    open_channel: grpc.aio.Channel,
    method: Method | str,
    request: bytes = b"",
    *,
    timeout: float = 5,
    metadata: Any = (),
) -> Outcome:
    """What becomes of one call; of a stream, of all of it."""
    name = method if isinstance(method, str) else method.name
    streams = not isinstance(method, str) and method.streams
    try:
        if streams:
            async for _ in open_channel.unary_stream(name)(
                request, timeout=timeout, metadata=metadata
            ):
                pass
        else:
            await open_channel.unary_unary(name)(request, timeout=timeout, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        told = f"{error.details()} {error.initial_metadata()} {error.trailing_metadata()}"
        return Outcome(error.code(), status.reason_of(error), told)
    return Outcome(grpc.StatusCode.OK)


async def call(
    mesh: Mesh, person: Person, method: Method, request: bytes, seconds: float
) -> Outcome:
    """The call with `seconds` left, over a connection that is there already."""
    peer = _CALLERS.get(method.name.split("/")[1].rsplit(".", 1)[1], "edge")
    async with channel(mesh, method.service, credentials_of(mesh, peer)) as opened:
        await opened.channel_ready()
        return await outcome(opened, method, request, timeout=seconds, metadata=person.by_token)
