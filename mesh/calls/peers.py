"""Which process calls: the name in its certificate, against the method's list."""

from typing import Any

import grpc

from mesh import errors
from mesh.access import Rule

_IDENTITY = "spiffe://khesht/"


def peer_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The name that the calling process's certificate gives it, or "".

    Only the SPIFFE URI counts: any name of the same authority may hold any
    common name.
    """
    for uri in context.auth_context().get("peer_uri", ()):
        name: str = uri.decode()
        if name.startswith(_IDENTITY):
            return name.removeprefix(_IDENTITY)
    return ""


def check(peer: str, rule: Rule) -> None:
    """Raises PermissionDenied unless `rule` lists `peer`."""
    if peer not in rule.peers:
        raise errors.PermissionDenied("PEER_NOT_ALLOWED", "this process may not call this method")
