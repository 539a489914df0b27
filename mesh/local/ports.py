"""Ports of this machine: free ones for processes, and a check of the ones people chose."""

import contextlib
import errno
import os
import secrets
import socket

from mesh.local.errors import LocalError

# Below the range from which Linux takes the ports of outgoing connections, so that a port stays
# free while the process that owns it is being started again.
INTERNAL = range(15_000, 32_000)


def free_ports(count: int) -> list[int]:
    """`count` different ports of 127.0.0.1 on which nothing listens now."""
    candidates = secrets.SystemRandom().sample(INTERNAL, len(INTERNAL))
    free: list[int] = []
    for port in candidates:
        if len(free) == count:
            return free
        with contextlib.suppress(OSError):
            _bind("127.0.0.1", port)
            free.append(port)
    raise LocalError(f"no {count} free ports between {INTERNAL.start} and {INTERNAL.stop - 1}")


def claim(port: int, variable: str) -> None:
    """Returns if a server may listen on `port`; raises LocalError, naming both, if not."""
    try:
        _bind("0.0.0.0", port)  # noqa: S104 - a trial on all addresses, given back at once
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "is taken" if taken else f"cannot be used ({os.strerror(error.errno or 0)})"
        raise LocalError(f"{variable} {port} {reason}; set {variable} to another") from error


def _bind(address: str, port: int) -> None:
    with socket.socket() as trial:
        # As servers do: a port whose last connections are only lingering counts as free.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind((address, port))
