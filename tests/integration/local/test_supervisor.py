"""Real processes: started in order, kept running, stopped in reverse, never left behind."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.local import supervisor
from mesh.local.child import dying_with_us
from mesh.local.errors import LocalError
from mesh.local.home import Home, locked
from mesh.local.logs import MAX_LOG_BYTES
from mesh.local.ready import Check
from mesh.local.state import MeshState, ProcessState, down, status
from mesh.local.supervisor import Process, Supervisor
from tests.integration.local import sample_mesh
from tests.support import eventually

ENVIRONMENT = {"PATH": os.defpath}
IGNORES_SIGTERM = "trap '' TERM; echo up; while :; do sleep 1000; done"


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


def sleeper(name: str) -> Process:
    return Process(name, ("sleep", "1000"), ENVIRONMENT, at_once)


def shell(
    name: str, script: str, ready: Check = at_once, stop_timeout: float = 10, stop_turn: int = 0
) -> Process:
    argv = ("sh", "-c", script)
    return Process(name, argv, ENVIRONMENT, ready, stop_timeout=stop_timeout, stop_turn=stop_turn)


def states(home: Home) -> dict[str, ProcessState]:
    """What another terminal sees of each process."""
    mesh = status(home)
    return {process.name: process for process in mesh.processes} if mesh else {}


def is_gone(pid: int | None) -> bool:
    """Whether no process, or only a zombie, has the id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def ignored_signals(pid: int) -> int:
    """The set of signals that a process ignores, as a number."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(line for line in lines if line.startswith("SigIgn"))
    return int(ignored.split()[1], 16)


@pytest.fixture
async def held(home: Home) -> AsyncIterator[Home]:
    """A home for a supervisor of this process, which must leave no task behind."""
    before = ours()
    with locked(home):
        yield home
    assert ours() - before == set()


def ours() -> set[asyncio.Task[object]]:
    """The tasks that run code of `mesh.local`; other tests' services share this event loop."""
    local = str(Path(supervisor.__file__).parent)
    return {task for task in asyncio.all_tasks() if local in _file_of(task)}


def _file_of(task: asyncio.Task[object]) -> str:
    """Where the code of a task is, or "" for one that is not written in Python."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code.co_filename if code else ""


async def test_a_killed_child_is_reported_and_started_again_alone(held: Home) -> None:
    said: list[str] = []
    async with Supervisor(held, said.append) as mesh:
        await mesh.start(shell("one", "echo last words; exec sleep 1000"))
        await mesh.start(sleeper("two"))
        await eventually((held.logs / "one.log").read_text)
        before = states(held)
        assert before["one"].pid is not None
        os.kill(before["one"].pid, signal.SIGKILL)

        after = await eventually(
            lambda: (now := states(held))["one"].restarts == 1 and now["one"].healthy and now
        )

    expected = "one was ended by signal 9 (Killed); starting it again in 0.2 s\n    last words"
    assert said == [expected]
    assert after["two"] == before["two"]
    assert after["one"].pid not in (None, before["one"].pid)


async def test_a_child_is_started_again_even_if_nobody_hears_of_it(held: Home) -> None:
    def closed(text: str) -> None:
        raise BrokenPipeError(text)

    async with Supervisor(held, closed) as mesh:
        await mesh.start(sleeper("one"))
        pid = states(held)["one"].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: states(held)["one"].pid not in (None, pid))


async def test_a_child_has_a_session_of_its_own_and_default_signals(held: Home) -> None:
    async with Supervisor(held, print) as mesh:
        await mesh.start(sleeper("one"))
        pid = states(held)["one"].pid
        assert pid is not None
        # The wrapper becomes the command within a few milliseconds.
        program = Path(f"/proc/{pid}/cmdline")
        await eventually(lambda: program.read_bytes() == b"sleep\x001000\x00")

        # What the C library keeps for itself, from 32 up, is as this process was given it.
        assert (os.getsid(pid), ignored_signals(pid) & (1 << 31) - 1) == (pid, 0)


async def test_health_is_kept_current_after_the_start(held: Home, tmp_path: Path) -> None:
    flag = tmp_path / "healthy"
    flag.touch()

    async def flagged() -> bool:
        return flag.exists()

    async with Supervisor(held, print) as mesh:
        await mesh.start(shell("one", "exec sleep 1000", ready=flagged))
        assert states(held)["one"].healthy
        flag.unlink()
        await eventually(lambda: not states(held)["one"].healthy)
        flag.touch()
        await eventually(lambda: states(held)["one"].healthy)


async def test_wrong_configuration_fails_the_start_at_once_with_the_end_of_the_log(
    held: Home,
) -> None:
    said: list[str] = []
    script = "echo PORT is not a number >&2; exit 2"
    with pytest.raises(LocalError) as failure:
        async with Supervisor(held, said.append) as mesh:
            await mesh.start(sleeper("good"), shell("bad", script, ready=never))

    assert str(failure.value) == "bad exited with code 2\n    PORT is not a number"
    assert said == []


async def test_three_deaths_before_ready_fail_the_start(held: Home) -> None:
    said: list[str] = []
    with pytest.raises(LocalError, match=r"^bad exited with code 1"):
        async with Supervisor(held, said.append) as mesh:
            await mesh.start(shell("bad", "exit 1", ready=never))

    assert len(said) == 2


async def test_a_program_that_is_missing_is_named(held: Home) -> None:
    process = Process("ghost", ("/no/such/program",), ENVIRONMENT, never)
    with pytest.raises(LocalError, match=r"/no/such/program: No such file"):
        async with Supervisor(held, print) as mesh:
            await mesh.start(process)


async def test_a_start_that_takes_too_long_tells_the_last_check(held: Home) -> None:
    async def broken() -> bool:
        raise ConnectionRefusedError("nobody is there")

    slow = shell("slow", "exec sleep 1000", ready=broken)
    with pytest.raises(LocalError, match=r"slow is not ready after 0\.3 s .*nobody"):
        async with Supervisor(held, print) as mesh:
            await mesh.start(slow, within=0.3)


@pytest.mark.parametrize(
    ("turns", "stopped"),
    [((0, 0, 0), ("three", "two", "one")), ((0, -1, 0), ("two", "three", "one"))],
)
async def test_groups_start_in_order_and_stop_by_turn_and_in_reverse(
    held: Home, tmp_path: Path, turns: tuple[int, ...], stopped: tuple[str, ...]
) -> None:
    diary = tmp_path / "diary"

    def diarist(name: str, turn: int) -> Process:
        script = (
            f"trap 'echo {name} stops >> {diary}; exit 0' TERM;"
            f"echo {name} starts >> {diary}; while :; do sleep 0.01; done"
        )

        async def wrote() -> bool:
            return diary.exists() and f"{name} starts" in diary.read_text()

        return shell(name, script, ready=wrote, stop_turn=turn)

    async with Supervisor(held, print) as mesh:
        for name, turn in zip(("one", "two", "three"), turns, strict=True):
            await mesh.start(diarist(name, turn))

    starts = ["one starts", "two starts", "three starts"]
    stops = [f"{name} stops" for name in stopped]
    assert diary.read_text().splitlines() == starts + stops


async def test_a_child_that_ignores_the_signal_is_killed_with_its_group(held: Home) -> None:
    said: list[str] = []
    stubborn = shell("stubborn", IGNORES_SIGTERM, stop_timeout=0.2)
    async with Supervisor(held, said.append) as mesh:
        await mesh.start(stubborn)
        await eventually((held.logs / "stubborn.log").read_text)
        pid = states(held)["stubborn"].pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        grandchild = int(await eventually(children.read_text))

    assert said == ["stubborn does not stop; killing it"]
    assert is_gone(pid)
    await eventually(lambda: is_gone(grandchild))


async def test_a_second_signal_hurries_the_stop(
    held: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.local.supervisor.HURRIED", 0.1)
    said: list[str] = []
    stubborn = shell("stubborn", IGNORES_SIGTERM, stop_timeout=600)

    async def up() -> str:
        async with Supervisor(held, said.append, "stopping what is stubborn") as mesh:
            await mesh.start(stubborn)
            await eventually((held.logs / "stubborn.log").read_text)
            said.append("ready")
            await mesh.wait()
        return "ended well"

    ending = asyncio.create_task(up())
    await eventually(lambda: "ready" in said)
    for heard in (
        "stopping what is stubborn; once more to hurry",
        "stubborn does not stop; killing it",
    ):
        os.kill(os.getpid(), signal.SIGINT)
        await eventually(lambda heard=heard: heard in said)

    assert await asyncio.wait_for(ending, 5) == "ended well"


async def test_a_signal_during_the_start_ends_it(held: Home) -> None:
    async def up() -> None:
        async with Supervisor(held, print) as mesh:
            await mesh.start(shell("slow", "exec sleep 1000", ready=never))

    ending = asyncio.create_task(up())
    pid = await eventually(lambda: "slow" in states(held) and states(held)["slow"].pid)
    os.kill(os.getpid(), signal.SIGTERM)

    await asyncio.wait_for(ending, 5)
    assert is_gone(pid)


async def test_cancellation_from_elsewhere_stops_all_and_goes_on(held: Home) -> None:
    async def up() -> None:
        async with Supervisor(held, print) as mesh:
            await mesh.start(sleeper("one"))
            await mesh.wait()

    ending = asyncio.create_task(up())
    pid = await eventually(lambda: "one" in states(held) and states(held)["one"].pid)
    ending.cancel()

    with pytest.raises(asyncio.CancelledError):
        await ending
    assert is_gone(pid)


async def test_a_task_is_run_to_its_end(held: Home) -> None:
    async with Supervisor(held, print) as mesh:
        await mesh.run(shell("migrate", "echo done", ready=never))
        with pytest.raises(LocalError, match=r"migrate exited with code 3\n    no"):
            await mesh.run(shell("migrate", "echo no; exit 3", ready=never))

    assert (held.logs / "migrate.log").read_text() == "done\nno\n"


async def test_a_large_log_is_put_aside_at_the_start(held: Home) -> None:
    log = held.logs / "one.log"
    log.touch()
    os.truncate(log, MAX_LOG_BYTES + 1)
    async with Supervisor(held, print) as mesh:
        await mesh.run(shell("one", "echo new"))

    assert log.read_text() == "new\n"
    assert log.with_name("one.log.1").stat().st_size == MAX_LOG_BYTES + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_mesh_well(home: Home, number: signal.Signals) -> None:
    with sample_mesh.running(home.root) as mesh:
        seen = status(home)
        mesh.send_signal(number)
        rest, _ = mesh.communicate(timeout=10)

    assert seen is not None
    assert all(is_gone(p.pid) for p in seen.processes)
    assert (rest, mesh.returncode) == ("stopping; once more to hurry\n", 0)


def test_a_mesh_that_nobody_listens_to_stops_all_the_same(home: Home) -> None:
    with sample_mesh.running(home.root) as mesh:
        seen = status(home)
        assert mesh.stdout is not None
        mesh.stdout.close()
        mesh.terminate()
        mesh.wait(10)

    assert seen is not None
    assert all(is_gone(p.pid) for p in seen.processes)


def test_another_terminal_sees_the_mesh_and_stops_it(home: Home) -> None:
    with sample_mesh.running(home.root) as mesh:
        seen = status(home)
        stopped = down(home, timeout=10)
        code = mesh.wait(5)

    assert seen is not None
    described = [(p.name, p.healthy, p.restarts) for p in seen.processes]
    assert described == [(name, True, 0) for name in ("postgres", "first", "second")]
    assert (seen.pid, stopped, code) == (mesh.pid, True, 0)
    assert all(is_gone(p.pid) for p in seen.processes)
    assert (status(home), down(home, timeout=1)) == (None, False)


async def test_nothing_outlives_a_killed_mesh_and_it_starts_again(home: Home) -> None:
    with sample_mesh.running(home.root) as mesh:
        seen = status(home)
        mesh.kill()
        mesh.wait()
    assert seen is not None
    assert len(seen.processes) == 3
    for process in seen.processes:
        await eventually(lambda pid=process.pid: is_gone(pid))
    assert status(home) is None

    with sample_mesh.running(home.root):
        again = status(home)

    assert again is not None
    assert all(process.healthy for process in again.processes)


def test_a_second_mesh_in_one_home_is_refused_naming_the_first(home: Home) -> None:
    with sample_mesh.running(home.root) as mesh:
        command = [*sample_mesh.COMMAND, str(home.root)]
        second = subprocess.run(
            command, cwd=sample_mesh.ROOT, capture_output=True, text=True, check=False
        )

    assert second.returncode == 1
    assert second.stderr.startswith(
        f"a mesh runs in {home.root} already (process {mesh.pid}); stop it"
    )


async def test_a_mesh_that_was_just_locked_has_no_processes_yet(held: Home) -> None:
    assert status(held) == MeshState(os.getpid(), ())


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    *wrapper, _us, echo, text = dying_with_us("echo", "started")
    command = [*wrapper, "1", echo, text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the parent is gone\n"
