"""How long callers are refused, or kept waiting, when a process dies or freezes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import psutil
import pytest

from tests.mesh.running import Account, Up
from tests.support import eventually

WHOLE_AGAIN_S = 3.0
SLOWEST_REFUSAL_S = 5.0
# A service's imports take as long on a machine of two cores with nothing else to do.
IMPORTS_S = 1.0
PROCESSES = ["chat", "usage", "keys", "auth", "postgres"]


@dataclass
class Refusals:
    """What callers met: each refusal's moment, and the seconds that it took."""

    began: float = field(default_factory=time.monotonic)
    all: list[tuple[float, float]] = field(default_factory=list)

    def last(self) -> float:
        """Seconds from the beginning to the last refusal."""
        return max((at - self.began for at, _ in self.all), default=0.0)

    def slowest(self) -> float:
        """Seconds of the slowest refusal."""
        return max((took for _, took in self.all), default=0.0)


@pytest.fixture(scope="module")
def slowness() -> float:
    """How many times slower than the machine of IMPORTS_S this one is now; 1 if it is not."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import services.auth.wiring"], check=True)
    return max(1.0, (time.monotonic() - began) / IMPORTS_S)


@asynccontextmanager
async def calling(up: Up, account: Account) -> AsyncIterator[Refusals]:
    """Calls every service all the time, and notes what is refused."""
    calls: list[tuple[str, str, object, str]] = [
        ("GET", "/auth/me", None, account.token),
        ("GET", "/api/v1/api-keys", None, account.token),
        ("GET", "/v1/usage", None, account.token),
        ("GET", "/chats", None, account.token),
        ("POST", "/chat", {"message": "Hi", "model": "echo"}, account.key),
    ]
    over, refusals = asyncio.Event(), Refusals()

    async def call(verb: str, path: str, body: object, token: str) -> None:
        while not over.is_set():
            began = time.monotonic()
            answer = await up.call(verb, path, body, token)
            now = time.monotonic()
            if answer.status not in (200, 429):
                refusals.all.append((now, now - began))
            await asyncio.sleep(0.1)

    tasks = [asyncio.create_task(call(*each)) for each in calls]
    await asyncio.sleep(0.5)
    refusals.began = time.monotonic()
    try:
        yield refusals
    finally:
        over.set()
        await asyncio.gather(*tasks)


def tree(pid: int) -> list[int]:
    """The process and all below it: PostgreSQL is many."""
    process = psutil.Process(pid)
    return [pid, *(each.pid for each in process.children(recursive=True))]


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    pids = tree(pid)
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in pids:
            os.kill(each, signal.SIGCONT)


def healthy(up: Up) -> Callable[[], object]:
    async def all_are() -> bool:
        return all(row["healthy"] for row in (await up.statuses()).values())

    return all_are


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_killed_process_is_missed_for_three_seconds(
    up: Up, account: Account, slowness: float, process: str
):
    await eventually(healthy(up), within=30)
    pid = (await up.statuses())[process]["pid"]
    async with calling(up, account) as refusals:
        for each in tree(pid):
            os.kill(each, signal.SIGKILL)
        await asyncio.sleep(WHOLE_AGAIN_S * slowness + 3)
    assert (await up.statuses())[process]["pid"] not in (None, pid)
    # Where PostgreSQL is back soon enough, services have tried again and nobody noticed.
    assert refusals.all or process == "postgres"
    assert refusals.last() <= WHOLE_AGAIN_S * slowness


@pytest.mark.parametrize("process", PROCESSES)
async def test_a_frozen_process_refuses_within_five_seconds(
    up: Up, account: Account, slowness: float, process: str
):
    await eventually(healthy(up), within=30)
    pid = (await up.statuses())[process]["pid"]
    async with calling(up, account) as refusals:
        with frozen(pid):
            await asyncio.sleep(2 * SLOWEST_REFUSAL_S)
        thawed = time.monotonic() - refusals.began
        await asyncio.sleep(WHOLE_AGAIN_S * slowness + 1)
    assert refusals.all
    assert refusals.slowest() <= SLOWEST_REFUSAL_S * slowness
    assert refusals.last() <= thawed + WHOLE_AGAIN_S * slowness
