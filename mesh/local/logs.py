"""The log file of a process: appended to by the process itself, rotated when it is started."""

import os
from pathlib import Path

LARGEST = 20 * 1024 * 1024
_TAIL_LINES, _TAIL_BYTES = 15, 4096


def open_for_append(path: Path) -> tuple[int, int]:
    """A descriptor to append to, and the size so far. A log above 20 MB becomes `<path>.1`."""
    if path.exists() and path.stat().st_size > LARGEST:
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return descriptor, os.fstat(descriptor).st_size


def tail(path: Path, start: int) -> str:
    """The last lines written after the byte `start`, indented; empty if there are none."""
    try:
        with path.open("rb") as file:
            file.seek(max(start, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
