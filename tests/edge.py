"""A real Envoy with the edge's template, before the services of a mesh in this process."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from cli import topology
from mesh import time_limits
from mesh.local import envoy
from mesh.local.ports import free_ports
from tests.harness import Mesh
from tests.support import eventually

ROOT = Path(__file__).parents[1]


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
        (folder / "pressure").write_text("0")
        values = {
            **time_limits.of_edge(scale),
            **{"GATEWAY_ADDRESS": "127.0.0.1", "GATEWAY_PORT": str(rest), "GATEWAY_TLS": "null"},
            **{"GRPC_ADDRESS": "127.0.0.1", "GRPC_PORT": str(native), "GRPC_TLS": "null"},
            **{"ADMIN_SOCKET": str(folder / "admin"), "ACCESS_LOG": str(folder / "access.log")},
            **{"CONNECTIONS": "1000", "PRESSURE": str(folder / "pressure")},
            **{
                "DESCRIPTOR": str(ROOT / "gen/khesht.binpb"),
                "OPENAPI": str(ROOT / "gen/openapi.json"),
            },
            **{"ERRORS_LUA": str(ROOT / "gateway/errors.lua")},
            **{"PAGES": str(ROOT / "gateway/pages"), "STATIC": str(ROOT / "gateway/static")},
            **{"EDGE_CERT": str(identity.cert), "EDGE_KEY": str(identity.key)},
            **{"CA_CERT": str(identity.ca), "CORS_ORIGINS": "[]"},
            **{f"{each.upper()}_ENDPOINTS": _endpoints(mesh, each) for each in topology.SERVICES},
        }
        config = folder / "envoy.yaml"
        config.write_text(envoy.render(ROOT / "gateway/envoy.yaml", values))
        process = await asyncio.create_subprocess_exec(*envoy.argv(config))
        try:
            edge = Edge(f"http://127.0.0.1:{rest}", f"127.0.0.1:{native}")
            await eventually(lambda: _is_well(edge), within=20)
            yield edge
        finally:
            process.terminate()
            await process.wait()


def _endpoints(mesh: Mesh, service: str) -> str:
    host, port = mesh.addresses[service].rsplit(":", 1)
    address = {"address": host, "port_value": int(port)}
    return json.dumps([{"endpoint": {"address": {"socket_address": address}}}])


async def _is_well(edge: Edge) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{edge.url}/health") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False
