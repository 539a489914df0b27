"""Logs that are rotated by size while their process writes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.local import logs
from mesh.local.home import Home, locked
from mesh.local.supervisor import Process, Supervisor
from tests.support import eventually

MAX_BYTES = 256 * 1024
# Writes numbered lines as fast as it can, as a service does: to what it was given, by O_APPEND.
WRITER = """
import os, sys
for number in range(int(sys.argv[1])):
    os.write(1, b"%08d %s\\n" % (number, b"x" * (number % 90)))
"""
COUNT = 60_000


def written(count: int) -> bytes:
    return b"".join(b"%08d %s\n" % (number, b"x" * (number % 90)) for number in range(count))


@pytest.fixture(autouse=True)
def small_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", MAX_BYTES)


def can_collapse(folder: Path) -> bool:
    """Whether the file system can do what keeps every line."""
    path = folder / "probe"
    path.write_bytes(b"x" * 8192)
    with path.open("r+b") as file:
        return logs._collapse(file.fileno(), os.fstatvfs(file.fileno()).f_bsize)


def put_together(path: Path, count: int) -> tuple[bytes, int]:
    """All that a writer wrote, put together of what each rotation moved; and how many those were."""
    descriptor, start = logs.open_for_append(path)
    assert start == 0
    parts: list[bytes] = []
    with subprocess.Popen([sys.executable, "-c", WRITER, str(count)], stdout=descriptor) as writer:
        os.close(descriptor)
        while writer.poll() is None:
            if logs.is_due(path):
                moved = logs.rotate(path)
                parts.append(path.with_name("x.log.1").read_bytes())
                assert len(parts[-1]) == moved
    assert writer.returncode == 0
    return b"".join([*parts, path.read_bytes()]), len(parts)


def test_nothing_is_lost_at_the_cut(tmp_path: Path):
    together, cuts = put_together(tmp_path / "x.log", COUNT)
    assert cuts > 3
    if not can_collapse(tmp_path):
        pytest.skip("this file system cannot take the start out of a file: lines may be lost")
    assert together == written(COUNT)


def test_where_the_file_system_cannot_what_stands_at_the_cut_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without a writer: what is written in that very moment may be lost there."""
    monkeypatch.setattr(logs, "_collapse", lambda *_: False)
    path, content = tmp_path / "x.log", written(COUNT)
    path.write_bytes(content)
    assert logs.rotate(path) == len(content)
    assert path.with_name("x.log.1").read_bytes() == content
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "x.log"
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    monkeypatch.setattr(logs.os, "write", full)
    with pytest.raises(OSError, match="No space"):
        logs.rotate(path)
    monkeypatch.undo()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["x.log"]
    assert path.stat().st_size == MAX_BYTES + 1


async def test_a_process_that_writes_for_ever_keeps_its_log_bounded(home: Home):
    script = f"{sys.executable} -c '{WRITER}' {COUNT}; echo last; exec sleep 1000"

    async def ready() -> bool:
        return True

    chatty = Process("chatty", ("sh", "-c", script), {"PATH": os.defpath}, ready)
    log = home.logs / "chatty.log"
    with locked(home):
        async with Supervisor(home, print) as mesh:
            await mesh.start(chatty)

            def ended() -> bool:
                return log.read_bytes().endswith(b"last\n") and log.stat().st_size <= MAX_BYTES

            await eventually(ended, within=30)
            kept = log.with_name("chatty.log.1").read_bytes() + log.read_bytes()
    # Of what came before there is no more than the two files hold; what they hold is whole.
    assert (written(COUNT) + b"last\n").endswith(kept)
    assert log.with_name("chatty.log.1").stat().st_mode & 0o777 == 0o600


async def test_another_file_of_a_process_is_bounded_too(home: Home):
    other = home.logs / "access.log"
    script = f"{sys.executable} -c '{WRITER}' {COUNT} >> {other}; exec sleep 1000"

    async def ready() -> bool:
        return True

    chatty = Process("edge", ("sh", "-c", script), {"PATH": os.defpath}, ready, other_logs=(other,))
    with locked(home):
        async with Supervisor(home, print) as mesh:
            await mesh.start(chatty)
            former = other.with_name("access.log.1")
            await eventually(former.exists, within=30)
            await eventually(lambda: not logs.is_due(other), within=30)


def test_the_end_of_a_rotated_log_is_still_told(tmp_path: Path):
    path = tmp_path / "x.log"
    path.write_text("one\ntwo\n")
    assert logs.tail(path, 10_000_000) == "    one\n    two"
