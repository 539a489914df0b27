"""Starts processes in groups, keeps them running, and stops them in order."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from mesh.local import logs
from mesh.local.child import dying_with_us
from mesh.local.errors import LocalError
from mesh.local.home import Home
from mesh.local.state import ProcessState, publish, withdraw

WRONG_CONFIGURATION = 2
"""The exit code by which a process says that starting it again is useless."""
DEATHS_BEFORE_READY = 3
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
STEADY = 10.0
"""A process that lived this long is started again after the first pause."""
POLL_STARTING, POLL_STEADY = 0.05, 1.5
PATIENCE = 2.0
"""Seconds a readiness check may take."""
HURRIED = 2.0
"""Seconds a process has to stop after a second signal."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Process:
    """What to run.

    `env` is the whole environment, and the only place for a secret: all users see arguments.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[], Awaitable[bool]]
    """Answers whether it serves; raising counts as no. Asked for as long as the process lives."""
    address: str = ""
    """Where it serves, for people."""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    """Seconds from `stop_signal` to SIGKILL."""
    stop_turn: int = 0
    """Lower ones are stopped first; those of a turn in reverse order of their start."""
    cwd: Path | None = None
    prefix: tuple[str, ...] = ()
    """Put before the command, to change credentials. It must end in executing the rest."""
    other_logs: tuple[Path, ...] = ()
    """Files that it appends to by itself (O_APPEND), rotated like its log."""


@dataclass(slots=True)
class _Child:
    process: Process
    log: Path
    started: asyncio.Future[None]
    """Done when first ready; fails when the first start does."""
    handle: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None
    healthy: bool = False
    restarts: int = 0
    log_start: int = 0
    last_check: str = "never checked"

    @property
    def state(self) -> ProcessState:
        alive = self.handle is not None and self.handle.returncode is None
        pid = self.handle.pid if self.handle is not None and alive else None
        return ProcessState(
            self.process.name, pid, self.process.address, self.healthy, self.restarts
        )


@dataclass(slots=True)
class Supervisor:
    """The processes of one mesh, to be used by whoever holds the home.

        async with Supervisor(home, report) as mesh:
            await mesh.start(database)
            await mesh.run(migrations)
            await mesh.start(auth, chat, keys)
            await mesh.wait()

    Leaving the block stops all, by `stop_turn`, each within its `stop_timeout`. SIGINT, SIGTERM
    and SIGHUP leave it; one more of them hurries the stop. `report` gets what people should see,
    `stopping` when a signal came. If this process is killed, the kernel kills its children.
    """

    home: Home
    report: Callable[[str], None]
    stopping: str = "stopping"
    progress: Callable[[str, bool], None] = lambda *_: None
    """Is called with a process's name when it begins to start, and when it is ready or has run."""
    _groups: list[list[_Child]] = field(init=False, default_factory=list)
    _owner: asyncio.Task[object] | None = field(init=False, default=None)
    _caught: tuple[signal.Signals, ...] = field(init=False, default=())
    _interrupted: bool = field(init=False, default=False)
    _stopping: bool = field(init=False, default=False)
    _hurry: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        """Begins to listen for signals, without SIGHUP if nohup has switched it off."""
        self._owner = asyncio.current_task()
        nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._caught = tuple(s for s in SIGNALS if not (nohup and s is signal.SIGHUP))
        loop = asyncio.get_running_loop()
        for number in self._caught:
            loop.add_signal_handler(number, self._signalled)
        self._publish()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Stops everything. If a signal was what ended the block, it ends without an error."""
        self._stopping = True
        stop = asyncio.create_task(self._stop())
        while not stop.done():
            # Nothing may be left running, so that only `_hurry` shortens this.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stop)
        loop = asyncio.get_running_loop()
        for number in self._caught:
            loop.remove_signal_handler(number)
        stop.result()
        ended_by_signal = (
            self._interrupted and self._owner is not None and self._owner.uncancel() == 0
        )
        return ended_by_signal and kind is asyncio.CancelledError

    async def start(self, *group: Process, within: float = 60.0) -> None:
        """Returns when all of the group are ready, and keeps them running from then on.

        Raises LocalError, with the end of its log, for a process that says its configuration is
        wrong (exit code 2), dies three times before it is ready, or is not ready in `within`
        seconds.
        """
        loop = asyncio.get_running_loop()
        children = [_Child(p, self._log(p), loop.create_future()) for p in group]
        self._groups.append(children)
        for child in children:
            self.progress(child.process.name, False)
            child.keeper = asyncio.create_task(self._keep(child))
        await asyncio.wait(
            [c.started for c in children], timeout=within, return_when=asyncio.FIRST_EXCEPTION
        )
        failures = [c.started.exception() for c in children if c.started.done()]
        for failure in filter(None, failures):
            raise failure
        for child in children:
            if not child.started.done():
                ending = f"is not ready after {within:g} s (last check: {child.last_check})"
                raise LocalError(self._story(child, ending))

    async def run(self, process: Process) -> None:
        """Returns when `process` has ended with code 0; its `ready` is not asked.

        Raises LocalError, with the end of its log, if it ended otherwise.
        """
        child = _Child(process, self._log(process), asyncio.get_running_loop().create_future())
        self.progress(process.name, False)
        try:
            handle = await self._spawn(child)
            code = await handle.wait()
        finally:
            await self._end(child)
        if code != 0:
            raise LocalError(self._story(child, _ending(code)))
        self.progress(process.name, True)

    async def wait(self) -> None:
        """Waits for a signal, for ever."""
        await asyncio.Event().wait()

    def _signalled(self) -> None:
        if self._stopping or self._interrupted:
            self._hurry.set()
        elif self._owner is not None:
            self._interrupted = True
            self._owner.cancel()
            self._say(f"{self.stopping}; once more to hurry")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # The terminal may be gone, and the mesh must still end.
            self.report(text)

    async def _keep(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        pause, deaths = FIRST_PAUSE, 0
        while True:
            born = loop.time()
            ending, hopeless = await self._live(child)
            child.healthy = False
            self._publish()
            if not child.started.done():
                deaths += 1
                if hopeless or deaths == DEATHS_BEFORE_READY:
                    child.started.set_exception(LocalError(self._story(child, ending)))
                    return
            if loop.time() - born > STEADY:
                pause = FIRST_PAUSE
            self._say(self._story(child, f"{ending}; starting it again in {pause:g} s"))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            child.restarts += 1

    async def _live(self, child: _Child) -> tuple[str, bool]:
        """How one life of the process ended, and whether another is hopeless."""
        try:
            handle = await self._spawn(child)
        except OSError as error:
            return f"cannot be started ({error})", False
        self._publish()
        poll = asyncio.create_task(self._poll(child))
        try:
            code = await handle.wait()
        finally:
            poll.cancel()
            await asyncio.wait([poll])
        return _ending(code), code == WRONG_CONFIGURATION

    async def _poll(self, child: _Child) -> None:
        loop = asyncio.get_running_loop()
        hasty_until = loop.time() + 30
        while True:
            try:
                # Not wait_for, which loses a cancellation that comes as the check ends.
                async with asyncio.timeout(PATIENCE):
                    healthy = await child.process.ready()
                child.last_check = "ready" if healthy else "not ready"
            except Exception as error:
                # Whatever it is, it is not ready; the text is told if it stays so.
                healthy, child.last_check = False, str(error) or type(error).__name__
            if healthy != child.healthy:
                child.healthy = healthy
                self._publish()
            if healthy and not child.started.done():
                child.started.set_result(None)
                self.progress(child.process.name, True)
            await self._rotate(child)
            hasty = not healthy and loop.time() < hasty_until
            await asyncio.sleep(POLL_STARTING if hasty else POLL_STEADY)

    async def _rotate(self, child: _Child) -> None:
        for path in filter(logs.is_due, (child.log, *child.process.other_logs)):
            with contextlib.suppress(OSError):  # No room: it grows on, and is tried again.
                moved = await asyncio.to_thread(logs.rotate, path)
                child.log_start -= moved if path == child.log else 0

    async def _spawn(self, child: _Child) -> asyncio.subprocess.Process:
        process = child.process
        output, child.log_start = logs.open_for_append(child.log)
        try:
            handle = await asyncio.create_subprocess_exec(
                *process.prefix,
                *dying_with_us(*process.argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=process.env,
                cwd=process.cwd,
                start_new_session=True,  # Ctrl-C in a terminal is for us alone.
            )
        finally:
            os.close(output)
        child.handle = handle
        return handle

    async def _stop(self) -> None:
        turns: dict[tuple[int, int], list[_Child]] = {}
        for number, group in enumerate(self._groups):
            for child in group:
                turns.setdefault((child.process.stop_turn, -number), []).append(child)
        for turn in sorted(turns):
            await asyncio.gather(*(self._end(child) for child in turns[turn]))
        withdraw(self.home)

    async def _end(self, child: _Child) -> None:
        if child.keeper is not None:
            child.keeper.cancel()
            await asyncio.wait([child.keeper])
        handle, process = child.handle, child.process
        if handle is None or handle.returncode is not None:
            return
        ended = asyncio.create_task(handle.wait())
        hurry = asyncio.create_task(self._hurry.wait())
        _send(os.kill, handle.pid, process.stop_signal)
        await asyncio.wait(
            {ended, hurry}, timeout=process.stop_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        if not ended.done() and hurry.done():
            _send(os.kill, handle.pid, process.stop_signal)
            await asyncio.wait({ended}, timeout=HURRIED)
        if not ended.done():
            self._say(f"{process.name} does not stop; killing it")
            _send(os.killpg, handle.pid, signal.SIGKILL)
            await asyncio.wait({ended}, timeout=PATIENCE)
        hurry.cancel()
        child.healthy = False
        self._publish()

    def _publish(self) -> None:
        with contextlib.suppress(OSError):  # A full disk must not end the mesh.
            publish(self.home, [child.state for group in self._groups for child in group])

    def _log(self, process: Process) -> Path:
        return self.home.logs / f"{process.name}.log"

    def _story(self, child: _Child, ending: str) -> str:
        return f"{child.process.name} {ending}\n{logs.tail(child.log, child.log_start)}".rstrip()


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by signal {-code} ({signal.strsignal(-code)})"
    return f"exited with code {code}"


def _send(kill: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        kill(pid, number)
