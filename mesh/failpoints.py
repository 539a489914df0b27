"""Named places where a test lets a process die, fail or stand still; they do nothing otherwise.

With `KHESHT_FAILPOINTS=<folder>`, a file in it that is called like a place arms it for
whichever process comes there next: `kill`, `raise` or `pause`, and how often it has to
come there (`kill 3`). The file is taken away when that happens; `pause` lasts until the
file `<place>.paused` is. `raise always` stays. A mesh in production refuses to start so.
"""

import os
import signal
import time
from pathlib import Path

VARIABLE = "KHESHT_FAILPOINTS"
PLACES = (
    "chat.held",
    "chat.opened",
    "chat.first_part",
    "chat.part",
    "chat.segment",
    "chat.ending",
    "chat.ended",
    "chat.telling",
    "chat.told",
    "chat.reap",
    "worker.claimed",
    "usage.holding",
    "usage.held",
    "usage.recording",
    "usage.recorded",
)

_folder = os.environ.get(VARIABLE)
_come: dict[str, int] = {}


def reach(place: str) -> None:
    """Comes to `place`."""
    if _folder is not None:
        _look(Path(_folder) / place)


def _look(armed: Path) -> None:
    try:
        what, _, often = armed.read_text().partition(" ")
    except FileNotFoundError:
        return
    if often == "always":
        raise RuntimeError(f"failpoint {armed.name}")
    _come[armed.name] = _come.get(armed.name, 0) + 1
    if _come[armed.name] < int(often or 1):
        return
    try:
        armed.unlink()
    except FileNotFoundError:  # Another process was here first.
        return
    _come[armed.name] = 0
    _act(what, armed)


def _act(what: str, armed: Path) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raise":
        raise RuntimeError(f"failpoint {armed.name}")
    paused = armed.with_suffix(armed.suffix + ".paused")
    paused.touch()
    while paused.exists():
        time.sleep(0.01)
