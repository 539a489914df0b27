"""A real Envoy with the edge's template, before the services of a mesh in this process."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from cli.edge import Places, rendered
from cli.relief import ReliefFiles
from cli.settings import LocalSettings
from cli.topology import ROOT
from mesh.local import envoy
from mesh.local.ports import free_ports
from tests.harness import Mesh
from tests.support import eventually


@dataclass(frozen=True, slots=True)
class Edge:
    """Where it serves REST, and native gRPC as host:port."""

    url: str
    grpc: str


@asynccontextmanager
async def before(mesh: Mesh, scale: float = 1.0) -> AsyncIterator[Edge]:
    """An edge whose limits of time are shorter by `scale`; stopped at the end."""
    identity, (rest, native) = mesh.certificates["edge"], free_ports(2)
    # A socket's path is at most 107 bytes long, and pytest's own folders may be longer.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        relief = ReliefFiles(folder / "pressure", folder / "crowded.json")
        relief.clear()
        places = Places(ROOT, folder / "admin", folder / "access.log", relief)
        told = {"GATEWAY_PORT": str(rest), "GRPC_PORT": str(native), "CORS_ORIGINS": ""}
        settings, _ = LocalSettings.attempt(told)
        text = rendered(places, settings, identity, mesh.addresses, 1000, scale)
        config = folder / "envoy.yaml"
        config.write_text(text)
        process = await asyncio.create_subprocess_exec(*envoy.argv(config))
        try:
            edge = Edge(f"http://127.0.0.1:{rest}", f"127.0.0.1:{native}")
            await eventually(lambda: _is_well(edge), within=20)
            yield edge
        finally:
            process.terminate()
            await process.wait()


async def _is_well(edge: Edge) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{edge.url}/health") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
