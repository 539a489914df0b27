"""The whole mesh as `make run` starts it: `khesht up`, in a home of its own."""

import asyncio
import io
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import psycopg
from multidict import CIMultiDict

from mesh.local import home, postgres
from mesh.local.ports import free_ports
from tests import patience
from tests.fake_openai import FakeOpenAI, models_file

ROOT = Path(__file__).parent.parent.parent
JSON = dict[str, Any]


@dataclass
class Answer:
    """A whole answer over HTTP."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> JSON:
        """The body, which has to be JSON."""
        told: JSON = json.loads(self.text)
        return told

    @property
    def reason(self) -> str:
        """The reason of an error."""
        return str(self.body["error"]["reason"])


@dataclass
class Up:
    """A `khesht up` process, and how to talk to it."""

    home: Path
    gateway: int
    grpc: int
    environment: dict[str, str]
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    output: list[str] = field(default_factory=list)
    draining: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where REST is served."""
        return f"http://127.0.0.1:{self.gateway}"

    async def call(
        self, method: str, path: str, body: object = None, token: str = "", **headers: str
    ) -> Answer:
        """The whole answer to one request; `body` is sent as JSON, or as it is when bytes."""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            # Of a stream aiohttp sends a part at a time.
            data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
            headers.setdefault("Content-Type", "application/json")
        async with self.http.request(method, self.url + path, data=data, headers=headers) as got:
            return Answer(got.status, got.headers, await got.text())

    async def curl(self, verb: str, path: str, body: object = None, token: str = "") -> Answer:
        """As `call`, by the program curl."""
        arguments = ["-sS", "-i", "-X", verb, self.url + path]
        if token:
            arguments += ["-H", f"Authorization: Bearer {token}"]
        if body is not None:
            arguments += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        process = await asyncio.create_subprocess_exec(
            "curl", *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        head, _, text = output.decode().partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines)
        return Answer(int(status.split()[1]), headers, text)

    async def khesht(
        self, *arguments: str, stdin: str = "", folder: Path | None = None
    ) -> tuple[int, str]:
        """The exit status and the output of another `khesht` command on the same home.

        It runs in `folder`, whose `.env` it reads; that is the home if none is given.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", *arguments),
            env=self.environment,
            cwd=folder or self.home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(stdin.encode())
        return process.returncode or 0, output.decode()

    async def statuses(self) -> dict[str, JSON]:
        """What `khesht status --json` says, by process."""
        _, output = await self.khesht("status", "--json")
        return {row["name"]: row for row in json.loads(output)}

    async def administrator(self) -> str:
        """The administrator's URL of the database."""
        address = (await self.statuses())["postgres"]["address"]
        secret = home.master_secret(home.open_home(self.home), self.environment.get("SECRET_KEY"))
        return postgres.admin_dsn(int(address.rsplit(":", 1)[1]), secret)

    def descendants(self) -> list[psutil.Process]:
        """All processes below `khesht up`."""
        return psutil.Process(self.process.pid).children(recursive=True)


@dataclass(frozen=True)
class Account:
    """A registered account with a key."""

    id: str
    email: str
    token: str
    key: str
    key_id: str


async def new_account(up: Up) -> Account:
    """Registers, logs in and makes a key, over REST."""
    email, password = f"{uuid.uuid4().hex}@example.com", "password123"
    made = await up.call("POST", "/auth/register", {"email": email, "password": password})
    login = await up.call("POST", "/auth/login", {"email": email, "password": password})
    token = login.body["access_token"]
    key = await up.call("POST", "/api/v1/api-keys", {"name": "test"}, token)
    return Account(made.body["id"], email, token, key.body["key"], key.body["id"])


async def new_admin(up: Up) -> str:
    """The access token of a new admin."""
    account = await new_account(up)
    with psycopg.connect(await up.administrator()) as connection:
        connection.execute("UPDATE auth.users SET role = 'admin' WHERE id = %s", [account.id])
    login = {"email": account.email, "password": "password123"}
    return str((await up.call("POST", "/auth/login", login)).body["access_token"])


@asynccontextmanager
async def started(home: Path, **settings: str) -> AsyncIterator[Up]:
    """A mesh that is ready; at the end it is stopped, and nothing of it may stay."""
    gateway, grpc = free_ports(2)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT, ROOT / "gen" / "python")),
        "KHESHT_HOME": str(home),
        "GATEWAY_PORT": str(gateway),
        "GRPC_PORT": str(grpc),
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "up"),
        env=environment,
        cwd=home.parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with aiohttp.ClientSession() as http:
        up = Up(home, gateway, grpc, environment, process, http)
        try:
            await _ready(up)
            yield up
        finally:
            await _stopped(up)


def started_with(
    provider: FakeOpenAI, home: Path, **settings: str
) -> AbstractAsyncContextManager[Up]:
    """As `started`; OpenAI's models of the shipped file are those of `provider`."""
    own = {
        "MODELS_FILE": models_file(home.parent),
        "OPENAI_API_KEY": "sk-the-operators-own-key",
        "OPENAI_BASE_URL": provider.url,
    }
    return started(home, **(own | settings))


async def _ready(up: Up, within: float = 60) -> None:
    assert up.process.stdout is not None
    within = patience.patient(within)
    limit = time.monotonic() + within
    while True:
        line = (await asyncio.wait_for(up.process.stdout.readline(), within)).decode()
        assert line, f"khesht up ended: {''.join(up.output)}"
        up.output.append(line)
        assert time.monotonic() < limit, "".join(up.output)
        if line.startswith("ready"):
            up.draining = asyncio.create_task(_drain(up))
            return


async def _drain(up: Up) -> None:
    """Goes on reading what `up` says, so that it is never held up."""
    assert up.process.stdout is not None
    async for line in up.process.stdout:
        up.output.append(line.decode())


async def _stopped(up: Up) -> None:
    if up.process.returncode is not None:
        return
    below = up.descendants()
    up.process.send_signal(signal.SIGTERM)
    await asyncio.wait_for(up.process.wait(), patience.patient(60))
    left = [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"left behind: {left}"
    assert up.process.returncode == 0, "".join(up.output)
