"""The edge: the gateway's template, filled in, and its process on this machine."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.settings import EdgeTls, LocalSettings
from cli.topology import ROOT, SERVICES
from mesh.local import envoy
from mesh.local.certificates import Identity
from mesh.local.files import write_private
from mesh.local.home import Home
from mesh.local.ready import http_get, tcp_ready
from mesh.local.supervisor import Process

# The longest path that a Unix socket may have on Linux.
_LONGEST_SOCKET = 107
# What the edge reads besides its configuration, below the repository's root: the values of
# DESCRIPTOR, OPENAPI, ERRORS_LUA, PAGES and STATIC.
DOCUMENTS = (
    Path("gen/khesht.binpb"),
    Path("gen/openapi.json"),
    Path("gateway/errors.lua"),
    Path("gateway/pages"),
    Path("gateway/static"),
)
# What Envoy opens besides connections of clients: to services, files, and itself.
_OTHER_DESCRIPTORS = 400
_FEWEST_CONNECTIONS = 100
_PRESSURE_INTERVAL_S = 0.25
# From this pressure on the edge counts as overloaded, and for so long after it.
_OVERLOADED = 0.9
_OVERLOADED_S = 10.0
_PRESSURE_STAT = "overload.envoy.resource_monitors.global_downstream_max_connections.pressure"


@dataclass
class Relief:
    """Tells Envoy how many of its connections are used, by which it lets idle ones go.

    Envoy 1.40 knows that number, but lets it trigger nothing; it watches a file instead.
    """

    home: Home
    report: Callable[[str], None]
    _overloaded_at: float = field(init=False, default=-_OVERLOADED_S)

    @property
    def overloaded(self) -> bool:
        """Whether there was hardly room for new connections in the last 10 seconds."""
        return asyncio.get_running_loop().time() - self._overloaded_at < _OVERLOADED_S

    async def run(self) -> None:
        """Goes on until it is cancelled. While Envoy does not answer, nothing changes."""
        told = 0.0
        while True:
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                pressure = await self._pressure()
                if pressure >= _OVERLOADED:
                    if not self.overloaded:
                        self.report("the edge has hardly room for more connections")
                    self._overloaded_at = asyncio.get_running_loop().time()
                if pressure != told:
                    write_private(_pressure_file(self.home), str(pressure).encode())
                    told = pressure
            await asyncio.sleep(_PRESSURE_INTERVAL_S)

    async def _pressure(self) -> float:
        """What part of all connections is used. Raises OSError, ValueError, TimeoutError."""
        async with asyncio.timeout(1):
            told = await http_get(_admin_socket(self.home), f"/stats?filter={_PRESSURE_STAT}")
        percent = re.search(r"pressure: (\d+)", told)
        if percent is None:
            raise ValueError("Envoy does not tell its pressure")
        return min(1.0, int(percent[1]) / 100)


def process(
    home: Home,
    settings: LocalSettings,
    identity: Identity,
    addresses: Mapping[str, str],
    relief: Relief | None = None,
) -> Process:
    """Envoy in front of the services at `addresses`; ready when it listens.

    With a `relief`, which has to run beside it, it is not ready while it is overloaded.
    Raises LocalError when the template wants a value that is missing.
    """
    config, pressure = home.run / "envoy.yaml", _pressure_file(home)
    write_private(pressure, b"0")
    connections = _connections(settings.edge_connections)
    places = Places(ROOT, _admin_socket(home), home.logs / "access.log", pressure)
    text = rendered(places, settings, identity, addresses, connections)
    write_private(config, text.encode())
    # It listens once it knows which services are healthy.
    listens = tcp_ready(settings.gateway_port, settings.edge_host)

    async def ready() -> bool:
        return not (relief and relief.overloaded) and await listens()

    return Process(
        name="edge",
        argv=envoy.argv(config),
        env={"PATH": os.defpath},
        ready=ready,
        address=f"{settings.edge_address}:{settings.gateway_port}",
        other_logs=(places.access_log,),
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where Envoy finds what it reads, and leaves what it writes.

    `root` holds DOCUMENTS as the repository does.
    """

    root: Path
    admin_socket: Path
    access_log: Path
    pressure: Path


def rendered(
    places: Places,
    settings: LocalSettings,
    identity: Identity,
    addresses: Mapping[str, str],
    connections: int,
) -> str:
    """Envoy's configuration for services at `addresses`, host:port or several with commas.

    It takes as many `connections` of clients at once.

    Raises LocalError when the template wants a value that is missing.
    """
    endpoints = {
        f"{name.upper()}_ENDPOINTS": json.dumps(_endpoints(addresses[name])) for name in SERVICES
    }
    descriptor, openapi, errors_lua, pages, static = (places.root / each for each in DOCUMENTS)
    return envoy.render(
        ROOT / "gateway" / "envoy.yaml",
        endpoints
        | {
            "GATEWAY_ADDRESS": settings.edge_address,
            "GATEWAY_PORT": str(settings.gateway_port),
            "GRPC_ADDRESS": settings.edge_address,
            "GRPC_PORT": str(settings.grpc_port),
            "GATEWAY_TLS": json.dumps(_tls(settings.edge_tls, "h2", "http/1.1")),
            "GRPC_TLS": json.dumps(_tls(settings.edge_tls, "h2")),
            "ADMIN_SOCKET": str(places.admin_socket),
            "ACCESS_LOG": str(places.access_log),
            "PRESSURE": str(places.pressure),
            "CONNECTIONS": str(connections),
            "DESCRIPTOR": str(descriptor),
            "ERRORS_LUA": str(errors_lua),
            "OPENAPI": str(openapi),
            "PAGES": str(pages),
            "STATIC": str(static),
            "EDGE_CERT": str(identity.cert),
            "EDGE_KEY": str(identity.key),
            "CA_CERT": str(identity.ca),
            "CORS_ORIGINS": json.dumps(_origins(settings.cors_origins)),
        },
    )


def _tls(tls: EdgeTls | None, *protocols: str) -> dict[str, object] | None:
    """The transport socket of a listener that speaks TLS 1.2 or 1.3; None is plain text."""
    if tls is None:
        return None
    pair = {
        "certificate_chain": {"filename": str(tls.cert)},
        "private_key": {"filename": str(tls.key)},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": protocols,
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [pair],
            },
        },
    }


def _endpoints(addresses: str) -> list[dict[str, object]]:
    endpoints: list[dict[str, object]] = []
    for address in addresses.split(","):
        host, port = address.rsplit(":", 1)
        socket = {"address": host, "port_value": int(port)}
        endpoints.append({"endpoint": {"address": {"socket_address": socket}}})
    return endpoints


def _origins(listed: str) -> list[dict[str, object]]:
    """Matchers of the origins in CORS_ORIGINS: with commas between, `*` for any."""
    origins = [origin.strip() for origin in listed.split(",") if origin.strip()]
    return [
        {"safe_regex": {"regex": ".*" if origin == "*" else re.escape(origin)}}
        for origin in origins
    ]


def _connections(wanted: int) -> int:
    """As many as are `wanted`, or for as many as there are descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(_FEWEST_CONNECTIONS, min(wanted, most - _OTHER_DESCRIPTORS))


def _pressure_file(home: Home) -> Path:
    return home.run / "pressure"


def _admin_socket(home: Home) -> Path:
    path = home.run / "envoy.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"khesht-{name}.sock"
