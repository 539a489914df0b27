"""What other terminals may know and do: the state of the mesh that runs in a home, and its end."""

import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mesh.local.errors import LocalError
from mesh.local.files import write_private
from mesh.local.home import Home, holder


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process as its supervisor last saw it."""

    name: str
    pid: int | None
    """None while it is not running."""
    address: str
    healthy: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class MeshState:
    """A running mesh: its supervisor and its processes, in the order they were started."""

    pid: int
    processes: tuple[ProcessState, ...]


def status(home: Home) -> MeshState | None:
    """The mesh that runs in the home, or None. It has no processes until the first is started."""
    pid = holder(home)
    if pid is None:
        return None
    try:
        written = json.loads(_file(home).read_bytes())
    except FileNotFoundError:
        return MeshState(pid, ())
    if written["pid"] != pid:  # Left by a supervisor that was killed.
        return MeshState(pid, ())
    return MeshState(pid, tuple(ProcessState(**process) for process in written["processes"]))


def publish(home: Home, processes: Iterable[ProcessState]) -> None:
    """Makes `processes` the state of the mesh that this process supervises."""
    state = MeshState(os.getpid(), tuple(processes))
    write_private(_file(home), json.dumps(asdict(state)).encode())


def withdraw(home: Home) -> None:
    """Takes the state away, at the end of the mesh."""
    _file(home).unlink(missing_ok=True)


def down(home: Home, timeout: float) -> bool:
    """Stops the mesh that runs in the home and waits until it is gone; False if there was none.

    Raises LocalError if it may not be stopped, or still runs after `timeout` seconds.
    """
    pid = holder(home)
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return True  # It ended by itself just now.
    except PermissionError as error:
        raise LocalError(
            f"process {pid}, the mesh in {home.root}, belongs to another user"
        ) from error
    limit = time.monotonic() + timeout
    while holder(home) == pid:
        if time.monotonic() > limit:
            raise LocalError(
                f"process {pid}, the mesh in {home.root}, still runs after {timeout:g} s"
            )
        time.sleep(0.05)
    return True


def _file(home: Home) -> Path:
    return home.run / "mesh.json"
