"""The edge on this machine: the gateway's template, filled in, and its process."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cli.settings import LocalSettings
from cli.topology import ROOT, SERVICES
from mesh.local import envoy
from mesh.local.certificates import Identity
from mesh.local.files import write_private
from mesh.local.home import Home
from mesh.local.ready import tcp_ready
from mesh.local.supervisor import Process

# The longest path that a Unix socket may have on Linux.
_LONGEST_SOCKET = 107


def process(
    home: Home, settings: LocalSettings, identity: Identity, addresses: Mapping[str, str]
) -> Process:
    """Envoy in front of the services at `addresses`; ready when it listens.

    Raises LocalError when the template wants a value that is missing.
    """
    config = home.run / "envoy.yaml"
    text = envoy.render(
        ROOT / "gateway" / "envoy.yaml", values(home, settings, identity, addresses)
    )
    write_private(config, text.encode())
    port = settings.gateway_port
    return Process(
        name="edge",
        argv=envoy.argv(config),
        env={"PATH": os.defpath},
        # It listens once it knows which services are healthy.
        ready=tcp_ready(port),
        address=f"127.0.0.1:{port}",
    )


def values(
    home: Home, settings: LocalSettings, identity: Identity, addresses: Mapping[str, str]
) -> dict[str, str]:
    """What each placeholder of the template stands for."""
    endpoints = {
        f"{name.upper()}_ENDPOINTS": json.dumps(_endpoints(addresses[name])) for name in SERVICES
    }
    return endpoints | {
        "GATEWAY_ADDRESS": "127.0.0.1",
        "GATEWAY_PORT": str(settings.gateway_port),
        "GRPC_ADDRESS": "127.0.0.1",
        "GRPC_PORT": str(settings.grpc_port),
        "GATEWAY_TLS": "null",
        "GRPC_TLS": "null",
        "ADMIN_SOCKET": str(_admin_socket(home)),
        "ACCESS_LOG": str(home.logs / "access.log"),
        "DESCRIPTOR": str(ROOT / "gen" / "khesht.binpb"),
        "ERRORS_LUA": str(ROOT / "gateway" / "errors.lua"),
        "OPENAPI": str(ROOT / "gen" / "openapi.json"),
        "PAGES": str(ROOT / "gateway" / "pages"),
        "STATIC": str(ROOT / "gateway" / "static"),
        "EDGE_CERT": str(identity.cert),
        "EDGE_KEY": str(identity.key),
        "CA_CERT": str(identity.ca),
        "CORS_ORIGINS": json.dumps(_origins(settings.cors_origins)),
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


def _admin_socket(home: Home) -> Path:
    path = home.run / "envoy.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"khesht-{name}.sock"
