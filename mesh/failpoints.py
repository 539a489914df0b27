"""Named places where a test lets a process die, fail or stop; they do nothing otherwise.

`KHESHT_FAILPOINT=name:nth:what` arms one: the `nth` time that the process comes to
`name`, it kills itself (`kill`), raises (`raise`), or stands still as if frozen (`stop`).
A mesh in production refuses to start with it.
"""

import os
import signal
from dataclasses import dataclass


@dataclass(slots=True)
class _Armed:
    name: str
    left: int
    what: str


NAMES = frozenset(
    {
        "chat.held",
        "chat.opened",
        "chat.first_part",
        "chat.part",
        "chat.segment",
        "chat.ending",
        "chat.ended",
        "chat.telling",
        "chat.told",
        "worker.claimed",
        "usage.holding",
        "usage.held",
        "usage.recording",
        "usage.recorded",
    }
)


def armed(given: str) -> _Armed | None:
    """What `KHESHT_FAILPOINT` says. Raises ValueError when it says nothing known."""
    if not given:
        return None
    name, nth, what = given.split(":")
    if name not in NAMES or what not in ("kill", "raise", "stop"):
        raise ValueError(f"KHESHT_FAILPOINT: no {name} or no {what}")
    return _Armed(name, int(nth), what)


_armed = armed(os.environ.get("KHESHT_FAILPOINT", ""))


def reach(name: str) -> None:
    """Comes to the place `name`."""
    if _armed is not None and _armed.name == name:
        _act(_armed)


def _act(point: _Armed) -> None:
    point.left -= 1
    if point.left:
        return
    if point.what == "raise":
        raise RuntimeError(f"failpoint {point.name}")
    os.kill(os.getpid(), signal.SIGKILL if point.what == "kill" else signal.SIGSTOP)
