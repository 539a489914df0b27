"""A second replica of chat beside a running mesh, behind an edge of its own."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from cli import edge, topology
from cli.settings import LocalSettings
from mesh.local import certificates, home
from mesh.local.child import dying_with_us
from mesh.local.ports import free_ports
from tests.mesh.running import Up
from tests.support import eventually


@asynccontextmanager
async def replica(up: Up, folder: Path) -> AsyncIterator[Up]:
    """`up` by another edge, for which the only chat is a second replica.

    What the two leave goes into `folder`; at the end both are stopped.
    """
    port, gateway, grpc = free_ports(3)
    running = {name: row["address"] for name, row in (await up.statuses()).items()}
    addresses = running | {"chat": f"127.0.0.1:{port}"}
    of_mesh = home.open_home(up.home)
    identities = certificates.issue(of_mesh.certs, ("chat", "edge"))
    secret = home.master_secret(of_mesh, up.environment.get("SECRET_KEY"))
    told = topology.environment(
        "chat", addresses, identities["chat"], await up.administrator(), secret, up.environment
    )
    ports = {"GATEWAY_PORT": str(gateway), "GRPC_PORT": str(grpc)}
    settings, _ = LocalSettings.attempt(ports)
    place = home.open_home(folder)
    relief = edge.relief(place, settings, print)
    envoy = edge.process(place, settings, identities["edge"], addresses, relief)
    second = replace(up, gateway=gateway, grpc=grpc)
    async with (
        _running((sys.executable, "-m", "services.chat"), told | {"LAME_DUCK": "0"}, folder),
        _running(envoy.argv, envoy.env, folder),
    ):
        await eventually(lambda: _serves(second), within=60)
        yield second


@asynccontextmanager
async def _running(
    argv: tuple[str, ...], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *dying_with_us(*argv), env=environment, cwd=folder
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # It died; its exit status says of what.
            process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0


async def _serves(up: Up) -> bool:
    """Whether a call comes through the edge to chat, which wants a credential."""
    try:
        return (await up.call("GET", "/v1/models")).status == 401
    except aiohttp.ClientConnectorError:
        return False
