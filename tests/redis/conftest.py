"""A real redis-server, and replicas of keys that count with it."""

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from mesh.local import child
from mesh.local.ports import free_ports
from services.keys import shared_limits
from tests.support import eventually


@dataclass
class Server:
    """A redis-server on a port of its own, which can be stopped, frozen and started again."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it, empty, to end with this process whatever becomes of that."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": ""}
        self.process = await asyncio.create_subprocess_exec(
            *child.dying_with_us("redis-server"),
            *(part for name, value in options.items() for part in (f"--{name}", str(value))),
            stdout=asyncio.subprocess.DEVNULL,
        )

        async def answers() -> bool:
            with contextlib.suppress(RedisError):
                return bool(await self.ask("PING"))
            return False

        await eventually(answers)

    async def ask(self, *command: str) -> object:
        """What it answers to one command."""
        async with Redis.from_url(self.url) as client:
            return await client.execute_command(*command)

    async def stop(self) -> None:
        """Ends it at once, and with it all that it counted."""
        assert self.process
        self.send(signal.SIGKILL)
        await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process
        if self.process.returncode is None:
            self.process.send_signal(number)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Server]:
    assert shutil.which("redis-server"), "`make test-redis` installs redis-server"
    (port,) = free_ports(1)
    server = Server(tmp_path, port)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives Redis two seconds, for tests of what it counts on a machine that may be busy."""
    monkeypatch.setattr(shared_limits, "_TIMEOUT", 2)
