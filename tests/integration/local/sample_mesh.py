"""A mesh of a real database and two sleepers, in a process of its own.

Run as `COMMAND <home>` in the folder `ROOT`; `COMMAND <home> prepare` makes the database only.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mesh.local import postgres
from mesh.local.errors import LocalError
from mesh.local.home import Home, locked, master_secret, open_home
from mesh.local.ports import free_ports
from mesh.local.supervisor import Process, Supervisor

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "tests.integration.local.sample_mesh")


@contextlib.contextmanager
def running(root: Path, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A ready mesh in the home `root`, by a command after `prefix`; killed if it outlives this."""
    command = [*prefix, *COMMAND, str(root)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as mesh:
        try:
            assert mesh.stdout is not None
            assert mesh.stdout.readline() == "ready\n"
            yield mesh
        finally:
            mesh.kill()


async def up(home: Home) -> None:
    async with Supervisor(home, say) as mesh:
        await mesh.start(postgres.process(home, free_ports(1)[0]))
        await mesh.start(sleeper("first"), sleeper("second"))
        say("ready")
        await mesh.wait()


def sleeper(name: str) -> Process:
    return Process(name, ("sleep", "1000"), {"PATH": os.defpath}, ready=at_once)


async def at_once() -> bool:
    return True


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(root: str, *what: str) -> None:
    try:
        home = open_home(Path(root))
        with locked(home):
            postgres.prepare(home, master_secret(home, None))
            if what != ("prepare",):
                asyncio.run(up(home))
    except LocalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
