"""The log file of a process: appended to by the process itself, rotated by size while it runs."""

import ctypes
import os
from pathlib import Path

MAX_LOG_BYTES = 20 * 1024 * 1024
"""What a log holds above this goes to `<name>.1`, whose former content goes away."""
_CHUNK_BYTES = 1024 * 1024
_TAIL_LINES, _TAIL_BYTES = 15, 4096
_COLLAPSE_RANGE = 0x08  # FALLOC_FL_COLLAPSE_RANGE of linux/falloc.h


def open_for_append(path: Path) -> tuple[int, int]:
    """A descriptor to append to, and the size so far; nobody writes to the file yet."""
    if is_due(path):
        path.replace(_former(path))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return descriptor, os.fstat(descriptor).st_size


def is_due(path: Path) -> bool:
    """Whether a log has to be rotated."""
    try:
        return path.stat().st_size > MAX_LOG_BYTES
    except FileNotFoundError:
        return False


def rotate(path: Path) -> int:
    """Moves what a log holds to `<path>.1`, while a process appends to it; how many bytes.

    On ext4 and xfs the file system takes the start out of the file in one step (fallocate(2),
    FALLOC_FL_COLLAPSE_RANGE): nothing is lost, and both files put together are all that was
    written. The cut is at a block, not at a line. Where the file system can't, the file is
    emptied, and lost is what is written in the microseconds between the last read and that.
    Raises OSError, with the log as it was, when there is no room for the copy.
    """
    draft = path.with_name(f"{path.name}.new")
    with path.open("r+b", buffering=0) as log, draft.open("wb", buffering=0) as copy:
        draft.chmod(0o600)
        block = os.fstatvfs(log.fileno()).f_bsize
        # A range has to end before the file does.
        moved = (os.fstat(log.fileno()).st_size - 1) // block * block
        try:
            _copy(log.fileno(), copy.fileno(), 0, moved)
        except OSError:
            draft.unlink()
            raise
        # First the copy has its name: who dies here has written twice, and lost nothing.
        draft.replace(_former(path))
        if not _collapse(log.fileno(), moved):
            moved += _copy(log.fileno(), copy.fileno(), moved, None)
            os.ftruncate(log.fileno(), 0)
    return moved


def _former(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


def _copy(source: int, target: int, start: int, end: int | None) -> int:
    """Copies the bytes from `start` to `end`, or to where the file ends; how many."""
    place = start
    while end is None or place < end:
        size = _CHUNK_BYTES if end is None else min(_CHUNK_BYTES, end - place)
        data = os.pread(source, size, place)
        if not data:
            break
        view = memoryview(data)
        while view:
            view = view[os.write(target, view) :]
        place += len(data)
    return place - start


def _collapse(file: int, size: int) -> bool:
    """Takes the first `size` bytes, whole blocks, out of a file; whether the file system can."""
    fallocate = getattr(ctypes.CDLL(None), "fallocate64", None)
    if fallocate is None:
        return False
    arguments = (ctypes.c_int(file), ctypes.c_int(_COLLAPSE_RANGE))
    return bool(fallocate(*arguments, ctypes.c_int64(0), ctypes.c_int64(size)) == 0)


def tail(path: Path, start: int) -> str:
    """The last lines written after the byte `start`, indented; empty if there are none."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            # Past the end: it was rotated since.
            file.seek(max(start if start <= size else 0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])
