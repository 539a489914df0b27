"""Traffic through a mesh of which a process dies at a named place, and what has to be true after."""

import asyncio
import contextlib
import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil
import psycopg

from mesh.local import home, postgres
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Up, new_account
from tests.support import eventually

MODEL = "gpt-4o-mini"
PIECES = 60
# One token by our estimate too, which is charged where nobody lives to say what was counted.
PIECE = "word "
AT_ONCE = 3
TOKENS = (7, PIECES)
COMMANDS = {
    "chat": "services.chat\0",
    "worker": "services.chat.worker\0",
    "usage": "services.usage\0",
    "postgres": "bin/postgres\0",
}


@dataclass(frozen=True)
class Case:
    """Who dies when a process comes to a place, for the nth time, and by what traffic it does."""

    place: str
    victim: str
    surface: str = "stream"
    nth: int = 1

    @property
    def name(self) -> str:
        return f"{self.surface}-{self.place}-{self.victim}"


@dataclass
class Traffic:
    """What was asked by one account, and what its clients were told."""

    case: Case
    user_id: str
    key: str
    task_ids: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    fired: bool = False


@dataclass
class Campaign:
    """A mesh, its database and its provider."""

    up: Up
    provider: FakeOpenAI
    places: Path
    admin: str

    @classmethod
    async def of(cls, up: Up, provider: FakeOpenAI, places: Path) -> Self:
        """A campaign against `up`."""
        address = (await up.statuses())["postgres"]["address"]
        secret = home.master_secret(home.open_home(up.home), None)
        return cls(up, provider, places, postgres.admin_dsn(int(address.rsplit(":", 1)[1]), secret))

    async def run(self, case: Case) -> Traffic:
        """Lets a process die under traffic of an account of its own, and waits for it to be back."""
        self.provider.script = Script(pieces=(PIECE,) * PIECES, pause=0.01, tokens=TOKENS)
        if (
            case.surface == "task"
        ):  # A task whose worker died three times is given up, as it has to be.
            await eventually(self._no_task_died_twice, within=90)
        traffic = Traffic(case, *await eventually(self._new_payer, within=30))
        armed = self.places / case.place
        armed.write_text(f"{'kill' if case.victim == 'itself' else 'pause'} {case.nth}")
        ask = self._stream if case.surface == "stream" else self._task
        asked = [asyncio.create_task(ask(traffic, number)) for number in range(AT_ONCE)]
        with contextlib.suppress(AssertionError):
            await eventually(lambda: not armed.exists(), within=30)
            traffic.fired = True
        armed.unlink(missing_ok=True)
        if traffic.fired and case.victim != "itself":
            await self._kill(case)
        await asyncio.gather(*asked)
        await eventually(self._is_well, within=45)
        return traffic

    def _no_task_died_twice(self) -> bool:
        with psycopg.connect(self.admin, connect_timeout=5) as connection:
            twice = connection.execute(
                "SELECT 1 FROM chat.generations"
                " WHERE prompt IS NOT NULL AND status = 'running' AND tries > 0"
            )
            return twice.fetchone() is None

    async def _new_payer(self) -> tuple[str, str] | None:
        """A new account's id, and a key of it with a budget; None while something is down."""
        limits = {"name": "paid", "total_budget_usd": 100}
        with contextlib.suppress(KeyError, OSError, aiohttp.ClientError):
            account = await new_account(self.up)
            made = await self.up.call("POST", "/api/v1/api-keys", limits, account.token)
            return account.id, str(made.body["key"])
        return None

    async def _kill(self, case: Case) -> None:
        paused = self.places / f"{case.place}.paused"
        await eventually(paused.exists, within=5)
        for process in self.processes(case.victim):
            process.send_signal(signal.SIGKILL)
        paused.unlink()

    def processes(self, name: str) -> list[psutil.Process]:
        """The processes of one kind; of PostgreSQL the one that the others are children of."""
        found = []
        for process in self.up.descendants():
            with contextlib.suppress(psutil.Error):
                command = "\0".join([*process.cmdline(), ""])
                if COMMANDS[name] in command and "-m\0mesh" not in command:
                    found.append(process)
        if name == "postgres":
            return [each for each in found if each.parent() not in found]
        return found

    async def _is_well(self) -> bool:
        """Whether all are healthy, by what they say and as the edge sees them."""
        refusing = ("/v1/models", "/v1/usage", "/api/v1/api-keys", "/auth/me")
        try:
            told = await self.up.call("GET", "/health")
            seen = [(await self.up.call("GET", path)).status for path in refusing]
            psycopg.connect(self.admin, connect_timeout=5).close()  # Services may not know yet.
        except (OSError, aiohttp.ClientError, psycopg.OperationalError):
            return False
        return told.status == 200 and set(seen) == {401}

    async def _stream(self, traffic: Traffic, number: int) -> None:
        body = {"message": f"{traffic.user_id} {number}", "model": MODEL, "max_tokens": 100}
        headers = {"Authorization": f"Bearer {traffic.key}"}
        url = f"{self.up.url}/chat/stream"
        with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
            async with self.up.http.post(url, json=body, headers=headers, timeout=_PATIENCE) as got:
                async for line in got.content:
                    event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                    if event.get("done"):
                        traffic.whole.append(event["generation_id"])

    async def _task(self, traffic: Traffic, number: int) -> None:
        body = {"message": f"{traffic.user_id} {number}", "model": MODEL, "max_tokens": 100}

        async def taken() -> bool:
            try:
                made = await self.up.call("POST", "/chat/background", body, traffic.key)
            except (OSError, aiohttp.ClientError):
                return False
            if made.status == 200:
                traffic.task_ids.append(made.body["task_id"])
            return made.status == 200

        await eventually(taken, within=20)

    def wrong(self, traffic: Traffic) -> list[str]:
        """What is not as it has to be, in the end, of what `traffic` asked for."""
        with psycopg.connect(self.admin, connect_timeout=5) as connection:
            generations = _rows(
                connection,
                "SELECT id::text, status, reason, tries, basis, owed FROM chat.generations WHERE user_id = %s",
                traffic.user_id,
            )
            records = _rows(
                connection,
                "SELECT generation_id::text AS id, status, completion_tokens"
                " FROM usage.usage_records WHERE user_id = %s",
                traffic.user_id,
            )
            holds = _rows(
                connection,
                "SELECT generation_id::text AS id FROM usage.holds WHERE user_id = %s",
                traffic.user_id,
            )
        return [*self._unended(generations, holds), *self._uncharged(traffic, generations, records)]

    def _unended(self, generations: list[dict[str, Any]], holds: list[dict[str, Any]]) -> list[str]:
        running = [f"{g['id']} is {g['status']}" for g in generations if g["status"] in _RUNNING]
        owed = [f"{g['id']} is owed its record" for g in generations if g["owed"]]
        return [*running, *owed, *(f"{hold['id']} is held for" for hold in holds)]

    def _uncharged(
        self,
        traffic: Traffic,
        generations: list[dict[str, Any]],
        records: list[dict[str, Any]],
    ) -> list[str]:
        wrong = []
        asked = sorted(g["id"] for g in generations if g["basis"] is not None)
        if asked != sorted(record["id"] for record in records):
            wrong.append(f"{len(asked)} generations have {len(records)} records")
        requests = [r for r in self.provider.requests if traffic.user_id in json.dumps(r.body)]
        if traffic.case.surface == "stream" and len(requests) > len(records):
            wrong.append(f"{len(requests)} calls of the provider have {len(records)} records")
        sent, charged = sum(r.sent for r in requests), sum(r["completion_tokens"] for r in records)
        if not 0 <= charged <= sent:
            wrong.append(f"{charged} tokens are charged, and {sent} were sent")
        completed = {r["id"] for r in records if r["status"] == "completed"}
        wrong += [f"{each} was told to be whole" for each in traffic.whole if each not in completed]
        how = {g["id"]: f"{g['status']}, {g['reason']}, try {g['tries']}" for g in generations}
        undone = [each for each in traffic.task_ids if each not in completed]
        return [*wrong, *(f"task {each} is not done: {how.get(each)}" for each in undone)]


_RUNNING = ("pending", "running")
_PATIENCE = aiohttp.ClientTimeout(total=30)


def _rows(connection: psycopg.Connection, query: str, user_id: str) -> list[dict[str, Any]]:
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute(query.encode(), [user_id]).fetchall()
