"""`make run` as a user types it: waits for "ready", looks at it, and presses Ctrl-C.

Run in a checkout; arguments are given to make. Exits 1 with what was wrong.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

READY_WITHIN_S, STOPPED_WITHIN_S = 600, 60


def main(*arguments: str) -> None:
    """Starts, looks, stops; nothing of it may stay."""
    gateway, native = free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        home = str(Path(folder) / "home")
        settings = {"KHESHT_HOME": home, "GATEWAY_PORT": str(gateway), "GRPC_PORT": str(native)}
        began = time.monotonic()
        run = subprocess.Popen(
            ["make", "run", *arguments],
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        # What hangs is ended, and its output with it.
        limit = threading.Timer(READY_WITHIN_S, stop, (run, signal.SIGKILL))
        limit.start()
        try:
            assert run.stdout is not None
            output = []
            for line in run.stdout:
                print(line, end="", flush=True)
                output.append(line)
                if line.startswith("ready in"):
                    break
            else:
                sys.exit("make run ended, or was not ready in time")
            if warnings := [line for line in output if "WARNING" in line or "notice" in line]:
                sys.exit(f"warnings that are not ours: {warnings}")
            url = f"http://127.0.0.1:{gateway}/health"
            with urllib.request.urlopen(url, timeout=30) as answer:
                print(answer.read().decode())
            stop(run, signal.SIGINT)
            rest, _ = run.communicate(timeout=STOPPED_WITHIN_S)
            print(rest)
            # The mesh ends well; make, which gets the signal too, ends by it.
            if not rest.rstrip().endswith("stopped") or run.returncode != -signal.SIGINT:
                sys.exit(f"Ctrl-C ended make run with status {run.returncode}")
            if left := [each for each in commands() if home in each]:
                sys.exit(f"left behind: {left}")
        finally:
            limit.cancel()
            stop(run, signal.SIGKILL)
    print(f"make run was ready and stopped, all in {time.monotonic() - began:.0f} s")


def stop(run: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """Sends a signal to make and what it runs, as a terminal does."""
    if run.poll() is None:
        os.killpg(run.pid, number)


def free_port() -> int:
    """A port that nobody listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


def commands() -> "list[str]":
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
