"""`khesht up`, `down`, `status` and what becomes of a mesh when things go wrong."""

import asyncio
import os
import resource
import signal
import time
from pathlib import Path

import psutil
import pytest

from mesh import descriptors
from mesh.local.home import Home
from tests.mesh.running import Up, new_account, started
from tests.support import eventually

WITHIN = 12.0
NAMES = {"postgres", "auth", "keys", "usage", "items", "chat", "worker-1", "edge"}


def restarted(name: str, line: str) -> bool:
    """Whether a line of `khesht up` tells that a process is started again."""
    return line.startswith(f"{name} ") and "starting it again" in line


async def test_status_tells_of_each_process(up: Up):
    statuses = await up.statuses()
    assert set(statuses) == NAMES
    for row in statuses.values():
        assert set(row) == {"name", "pid", "address", "healthy"}
        assert row["healthy"] is True
        assert psutil.pid_exists(row["pid"])
    code, text = await up.khesht("status")
    assert (code, text.count("healthy")) == (0, len(NAMES))


async def test_all_processes_together_use_at_most_800_mb(tmp_path: Path):
    async with started(tmp_path / "home") as idle:  # Other tests leave theirs in what is shared.
        processes = [psutil.Process(idle.process.pid), *idle.descendants()]
        assert sum(process.memory_full_info().pss for process in processes) < 800e6


@pytest.mark.parametrize("name", ["items", "chat", "edge", "postgres"])
async def test_a_process_that_dies_is_started_again_and_said(up: Up, name: str):
    account = await new_account(up)
    before = (await up.statuses())[name]["pid"]
    os.kill(before, signal.SIGKILL)
    await eventually(lambda: any(restarted(name, line) for line in up.output), within=10)

    async def back() -> bool:
        row = (await up.statuses())[name]
        return row["pid"] not in (None, before) and row["healthy"]

    await eventually(back, within=20)

    async def answers() -> bool:
        try:
            made = await up.call("POST", "/items", {"name": "x", "price": 1}, account.key)
            said = await up.call("POST", "/chat", {"message": "x", "model": "echo"}, account.key)
        except OSError:
            return False
        return (made.status, said.status) == (200, 200)

    await eventually(answers, within=10)


async def test_a_second_mesh_in_the_same_home_is_refused(up: Up):
    code, output = await up.khesht("up")
    assert code == 2
    assert "runs in" in output
    assert str(up.process.pid) in output


async def test_a_taken_port_is_named(up: Up, tmp_path: Path):
    up.environment["KHESHT_HOME"] = str(tmp_path / "other")
    try:
        code, output = await up.khesht("up")
    finally:
        up.environment["KHESHT_HOME"] = str(up.home)
    assert code == 2
    assert f"GATEWAY_PORT {up.gateway} is taken" in output


async def test_wrong_settings_are_named_before_anything_starts(up: Up):
    wrong = {"GATEWAY_PORT": "many", "SECRET_KEY": "short", "RATE_LIMIT_PER_MINUTE": "-1"}
    for variable, value in wrong.items():
        kept = up.environment.get(variable)
        up.environment[variable] = value
        try:
            code, output = await up.khesht("check-config")
        finally:
            if kept is None:
                del up.environment[variable]
            else:
                up.environment[variable] = kept
        assert code == 2, output
        assert variable in output
        assert "Traceback" not in output
    assert (await up.khesht("check-config"))[0] == 0


async def test_a_mistyped_setting_is_noted(up: Up, tmp_path: Path):
    written = ("OPENAI_APIKEY=sk-secret", "SMTP_HOST=mail", "WORKERS=2", "MISTRAL_API_KEY=secret")
    (tmp_path / ".env").write_text("\n".join(written))
    code, output = await up.khesht("check-config", folder=tmp_path)
    assert (code, output.splitlines()) == (
        0,
        [
            "note: OPENAI_APIKEY in .env is no setting of khesht; is OPENAI_API_KEY meant?",
            "note: SMTP_HOST in .env is no setting of khesht",
            "the settings are good",
        ],
    )


async def test_a_mesh_stops_starts_again_in_12_seconds_and_remembers(tmp_path: Path):
    home = tmp_path / "home"
    async with started(home) as first:
        account = await new_account(first)
        chat = await first.call("POST", "/chats", {"title": "kept"}, account.token)
        reply = await first.call("POST", "/chat", {"message": "hello there"}, account.key)
        assert reply.body["message"] == "hello there"
        code, output = await first.khesht("down")
        assert (code, output) == (0, "stopped\n")
        await asyncio.wait_for(first.process.wait(), 5)
    took: list[float] = []
    while not took or (min(took) >= WITHIN and len(took) < 3):  # A machine may be busy with others.
        began = time.monotonic()
        async with started(home):
            took.append(time.monotonic() - began)
    assert min(took) < WITHIN
    async with started(home) as second:
        got = await second.call("GET", f"/chats/{chat.body['id']}", token=account.token)
        assert got.body["title"] == "kept"


async def test_a_mesh_whose_up_is_killed_leaves_no_process(tmp_path: Path):
    async with started(tmp_path / "home") as up:
        below = up.descendants()
        assert len(below) >= len(NAMES)
        up.process.kill()
        await up.process.wait()

        def gone() -> bool:
            return not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

        await eventually(gone, within=10)


async def test_what_the_supervisor_rotates_is_only_appended_to(up: Up):
    """Else a writer would go on at its former place, in a file that has become short."""
    logs = Home(up.home).logs
    found = set()
    for process in up.descendants():
        for file in process.open_files():
            path = Path(file.path)
            if path.parent == logs:
                found.add(path.name)
                assert file.flags & os.O_APPEND, file
    assert found >= {"access.log", "edge.log", "postgres.log", "auth.log", "chat.log"}


async def test_every_process_may_open_as_many_files_as_this_machine_allows(up: Up):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for process in up.descendants():
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        soft = limits.partition("Max open files")[2].split()[0]
        assert soft == "unlimited" or int(soft) >= min(hard, descriptors.WANTED), process.name()
