"""The edge: the gateway's template, filled in, and its process on this machine."""

import hashlib
import json
import os
import re
import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.relief import Relief, ReliefFiles
from cli.settings import EdgeTls, LocalSettings
from cli.topology import ROOT, SERVICES
from mesh import time_limits
from mesh.local import envoy
from mesh.local.certificates import Identity
from mesh.local.files import write_private
from mesh.local.home import Home
from mesh.local.ready import tcp_ready
from mesh.local.supervisor import Process

# The longest path that a Unix socket may have on Linux.
_LONGEST_SOCKET = 107
# What the edge reads besides its configuration, below the repository's root: the values of
# DESCRIPTOR, OPENAPI, PAGES and STATIC.
DOCUMENTS = (
    Path("gen/khesht.binpb"),
    Path("gen/openapi.json"),
    Path("gateway/pages"),
    Path("gateway/static"),
)
# What Envoy opens besides connections of clients: to services, files, and itself.
_OTHER_DESCRIPTORS = 400
_FEWEST_CONNECTIONS = 100
_ANY_ORIGIN = "*"


def relief(home: Home, settings: LocalSettings, report: Callable[[str], None]) -> Relief:
    """What keeps room at the edge of `home` for new connections."""
    return Relief(
        admin=_admin_socket(home),
        files=ReliefFiles(home.run / "pressure", home.run / "crowded.json"),
        ports=frozenset((settings.gateway_port, settings.grpc_port)),
        connections=_connections(settings.edge_connections),
        per_address=settings.edge_connections_per_address,
        report=report,
    )


def process(
    home: Home,
    settings: LocalSettings,
    identity: Identity,
    addresses: Mapping[str, str],
    relief: Relief,
) -> Process:
    """Envoy in front of the services at `addresses`; ready when it listens and has room.

    Its `relief` has to run beside it. Raises LocalError when the template wants a value that is
    missing.
    """
    config = home.run / "envoy.yaml"
    relief.files.clear()
    places = Places(ROOT, relief.admin, home.logs / "access.log", relief.files)
    text = rendered(places, settings, identity, addresses, relief.connections)
    write_private(config, text.encode())
    # It listens once it knows which services are healthy.
    listens = tcp_ready(settings.gateway_port, settings.edge_host)

    async def ready() -> bool:
        return not relief.overloaded and await listens()

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
    relief: ReliefFiles


def rendered(
    places: Places,
    settings: LocalSettings,
    identity: Identity,
    addresses: Mapping[str, str],
    connections: int,
    scale: float = 1.0,
) -> str:
    """Envoy's configuration for services at `addresses`, host:port or several with commas.

    It takes as many `connections` of clients at once. Its limits of time are shorter by `scale`.

    Raises LocalError when the template wants a value that is missing.
    """
    endpoints = {
        f"{name.upper()}_ENDPOINTS": json.dumps(_endpoints(addresses[name])) for name in SERVICES
    }
    descriptor, openapi, pages, static = (places.root / each for each in DOCUMENTS)
    return envoy.render(
        ROOT / "gateway" / "envoy.yaml",
        endpoints
        | time_limits.of_edge(scale)
        | {
            "GATEWAY_ADDRESS": settings.edge_address,
            "GATEWAY_PORT": str(settings.gateway_port),
            "GRPC_ADDRESS": settings.edge_address,
            "GRPC_PORT": str(settings.grpc_port),
            "GATEWAY_TLS": json.dumps(_tls(settings.edge_tls, "h2", "http/1.1")),
            "GRPC_TLS": json.dumps(_tls(settings.edge_tls, "h2")),
            "ADMIN_SOCKET": str(places.admin_socket),
            "ACCESS_LOG": str(places.access_log),
            "PRESSURE": str(places.relief.pressure),
            "CROWDED": str(places.relief.crowded),
            "CONNECTIONS": str(connections),
            "PROXY_HOPS": str(settings.trusted_proxy_hops),
            # `forwarded` (RFC 7239) is read by nobody here.
            "UNTRUSTED_FORWARDED": "forwarded"
            if settings.trusted_proxy_hops
            else "x-forwarded-for",
            "MEMORY": str(settings.edge_memory_mib << 20),
            "BODY_LIMIT": str(settings.body_limit_mib << 20),
            "DESCRIPTOR": str(descriptor),
            **scripts(settings.cors_origins),
            "OPENAPI": str(openapi),
            "PAGES": str(pages),
            "STATIC": str(static),
            "EDGE_CERT": str(identity.cert),
            "EDGE_KEY": str(identity.key),
            "CA_CERT": str(identity.ca),
            "CORS_ORIGINS": json.dumps(_origins(settings.cors_origins)),
            # To any origin they would be somebody else's to send.
            "CORS_CREDENTIALS": json.dumps(_ANY_ORIGIN not in _listed(settings.cors_origins)),
        },
    )


def scripts(cors_origins: str) -> dict[str, str]:
    """The values of ERRORS_LUA and NAMES_LUA: Lua as YAML takes it, told of CORS_ORIGINS."""
    routes, errors, names = (
        (ROOT / path).read_text()
        for path in ("gen/routes.lua", "gateway/errors.lua", "gateway/names.lua")
    )
    listed = ", ".join(f"[{json.dumps(origin)}] = true" for origin in _listed(cors_origins))
    origins = f"local ORIGINS = {{{listed}}}\n"
    return {"ERRORS_LUA": json.dumps(origins + routes + errors), "NAMES_LUA": json.dumps(names)}


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
    return [
        {"safe_regex": {"regex": ".*" if origin == _ANY_ORIGIN else re.escape(origin)}}
        for origin in _listed(listed)
    ]


def _listed(origins: str) -> list[str]:
    return [origin.strip() for origin in origins.split(",") if origin.strip()]


def _connections(wanted: int) -> int:
    """As many as are `wanted`, or for as many as there are descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return wanted
    return max(_FEWEST_CONNECTIONS, min(wanted, most - _OTHER_DESCRIPTORS))


def _admin_socket(home: Home) -> Path:
    path = home.run / "envoy.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"khesht-{name}.sock"
