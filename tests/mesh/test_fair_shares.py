"""Attacks by one caller, or two, through the real edge: twenty others are served as ever."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests import patience
from tests.fake_openai import FakeOpenAI, Request, Script
from tests.mesh.callers import new_callers, short_answer, slowest_of
from tests.mesh.running import JSON, Account, Answer, Up, started_with
from tests.support import eventually

ROUNDS = 25
# Between rounds, where they go on for as long as the attack.
PAUSE_S = 0.2
# What an ordinary caller may wait longer than when nobody attacks.
LONGER_S = 1.0
# What one account has of 1,024 calls at once, as CALL_LIMIT and ACCOUNT_SHARE are by default.
MOST_OF_ONE = 256
# Each of two: the one that comes second has a third of what the first has left free.
LEAST_OF_TWO = 192
UNARY, STREAMS = 600, 256
WAITING, TASKS_AT_ONCE, FILLING_AT_ONCE = 1_000, 20, 16
STRANGERS, GUESSES = 10, 12
FLOOD, LOGINS = 250, 4
ENDED_WITHIN_S = 2.0
# Behind four of the flood, where this process and the flood take their time as well.
LOGIN_S = 1.5

PASSWORD = "password123"

SILENT = Script(first_after=25)
ENDLESS = Script(pieces=("word ",) * 2_000, pause=0.02)
SLOW = Script(pieces=("word ",) * 600, pause=1.0)
SLOW_TASK = Script(first_after=3.0)


def open_requests(provider: FakeOpenAI, mark: str) -> list[Request]:
    """What the provider was asked with the message `mark`, and still answers."""
    return [
        each
        for each in provider.requests
        if each.closed_at is None and each.body["messages"][-1]["content"] == mark
    ]


class Attack:
    """Calls without end: `refused` counts the reasons of those that were refused."""

    def __init__(self, up: Up, path: str, body: JSON) -> None:
        self.refused: Counter[str] = Counter()
        self._url, self._body = up.url + path, body

    async def go_on(self, http: aiohttp.ClientSession, key: str) -> None:
        """Makes one call after another, as soon as the mesh says that it may."""
        headers = {"Authorization": f"Bearer {key}"}
        while True:
            async with http.post(self._url, json=self._body, headers=headers) as answer:
                if answer.status == 200:
                    await answer.read()
                    continue
                assert answer.status == 503, await answer.text()
                self.refused[(await answer.json())["error"]["reason"]] += 1
                again_s = float(answer.headers["Retry-After"])
            await asyncio.sleep(again_s)


@asynccontextmanager
async def attacked(up: Up, path: str, key: str, count: int, mark: str) -> AsyncIterator[Attack]:
    """Keeps `count` calls of `key` going, which send the message `mark`."""
    attack = Attack(up, path, {"message": mark, "model": "fast", "store": False})
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
        asyncio.TaskGroup() as group,
    ):
        calls = [group.create_task(attack.go_on(http, key)) for _ in range(count)]
        try:
            yield attack
        finally:
            for each in calls:
                each.cancel()


async def all_left(provider: FakeOpenAI, *marks: str) -> None:
    """Waits until the provider answers none of these, so that the next test finds it quiet."""
    await eventually(lambda: not any(open_requests(provider, mark) for mark in marks), 20)


async def test_600_calls_of_one_key_take_its_share_and_others_are_served(
    up: Up, ordinary: list[Account], provider: FakeOpenAI
):
    (account,) = await new_callers(up, 1)
    quiet_s = await slowest_of(up, ordinary)
    provider.script = SILENT
    async with attacked(up, "/chat", account.key, UNARY, "attack") as attack:
        await eventually(lambda: len(open_requests(provider, "attack")) == MOST_OF_ONE, 20)
        slowest_s = await slowest_of(up, ordinary, ROUNDS)
        assert len(open_requests(provider, "attack")) == MOST_OF_ONE
    assert set(attack.refused) == {"OVERLOADED"}
    assert attack.refused.total() >= UNARY - MOST_OF_ONE
    assert not patience.is_over(slowest_s - quiet_s, LONGER_S), (quiet_s, slowest_s)
    await all_left(provider, "attack")


async def test_where_one_may_take_more_the_same_calls_shut_others_out(
    tmp_path: Path, provider: FakeOpenAI
):
    async with started_with(
        provider,
        tmp_path / "home",
        CALL_LIMIT="24",
        ACCOUNT_SHARE="0.5",
    ) as small:
        account, *ordinary = await new_callers(small, 21)
        await slowest_of(small, ordinary, 5)
        provider.script = SILENT
        async with attacked(small, "/chat", account.key, UNARY, "attack"):
            await eventually(lambda: len(open_requests(provider, "attack")) == 12, 20)
            with pytest.raises(AssertionError, match="OVERLOADED"):
                await slowest_of(small, ordinary, 100)


async def test_256_streams_of_each_of_two_accounts_leave_room_for_others(
    up: Up, ordinary: list[Account], provider: FakeOpenAI
):
    first, second = await new_callers(up, 2)
    quiet_s = await slowest_of(up, ordinary)
    provider.script = SLOW
    async with (
        attacked(up, "/chat/stream", first.key, STREAMS, "one") as one,
        attacked(up, "/chat/stream", second.key, STREAMS, "two") as two,
    ):

        def carried() -> list[int]:
            return [len(open_requests(provider, mark)) for mark in ("one", "two")]

        await eventually(lambda: min(carried()) >= LEAST_OF_TWO, 20)
        slowest_s = await slowest_of(up, ordinary, ROUNDS)
        assert min(carried()) >= LEAST_OF_TWO
        assert max(carried()) <= MOST_OF_ONE
    assert set(one.refused) | set(two.refused) == {"OVERLOADED"}
    assert not patience.is_over(slowest_s - quiet_s, LONGER_S), (quiet_s, slowest_s)
    await all_left(provider, "one", "two")


async def task(up: Up, account: Account, mark: str) -> Answer:
    """The answer to a task in the background, which sends the message `mark`."""
    body = {"message": mark, "model": "fast", "store": False}
    return await up.call("POST", "/chat/background", body, account.key)


async def fill(up: Up, account: Account, mark: str) -> tuple[int, Answer]:
    """Makes tasks until one is refused: how many were made, and that answer."""
    made, refused = 0, []

    async def go_on() -> None:
        nonlocal made
        while not refused:
            answer = await task(up, account, mark)
            if answer.status == 200:
                made += 1
            else:
                refused.append(answer)

    await asyncio.gather(*(go_on() for _ in range(FILLING_AT_ONCE)))
    return made, refused[0]


async def test_a_single_task_passes_2000_that_wait_of_two_others(
    up: Up, account: Account, ordinary: list[Account], provider: FakeOpenAI
):
    many = await new_callers(up, 2)
    quiet_s = await slowest_of(up, ordinary)
    provider.script = SLOW_TASK
    filling = asyncio.gather(*(fill(up, each, "many") for each in many))
    slowest_s = 0.0
    while not filling.done():
        slowest_s = max(slowest_s, await slowest_of(up, ordinary))
        await asyncio.wait([filling], timeout=PAUSE_S)
    for made, refused in await filling:
        assert made >= WAITING
        assert (refused.status, refused.reason) == (429, "TOO_MANY_TASKS")
    assert not patience.is_over(slowest_s - quiet_s, LONGER_S), (quiet_s, slowest_s)

    def order() -> list[str]:
        return [each.body["messages"][-1]["content"] for each in provider.requests]

    before = len(order())
    single = (await task(up, account, "single")).body["task_id"]

    async def done() -> bool:
        got = await up.call("GET", f"/chat/tasks/{single}", token=account.key)
        return str(got.body["status"]) == "completed"

    await eventually(done, 4 * SLOW_TASK.first_after)
    # Of those that wait, the worker takes at most the next ones for its places before it.
    assert order().index("single") - before <= 2 * TASKS_AT_ONCE
    assert len(order()) < WAITING  # Or it was no attack.

    # Whose key is revoked has nothing that waits: no other test finds the worker busy.
    for each in many:
        await up.call("DELETE", f"/api/v1/api-keys/{each.key_id}", token=each.token)

    async def none_is_left() -> bool:
        paths = [f"/v1/generations?status={status}" for status in ("pending", "running")]
        left = [await up.call("GET", path, token=each.token) for each in many for path in paths]
        return not any(each.body["generations"] for each in left)

    await eventually(none_is_left, 20)


@asynccontextmanager
async def from_address(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Calls as from another machine: the edge sees `address`, of 127.0.0.0/8, as the client's."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as http:
        yield http


async def log_in(
    up: Up, http: aiohttp.ClientSession, email: str, password: str, **headers: str
) -> str:
    """The reason for which a login is refused, or ""."""
    body = {"email": email, "password": password}
    async with http.post(f"{up.url}/auth/login", json=body, headers=headers) as answer:
        return "" if answer.status == 200 else str((await answer.json())["error"]["reason"])


async def test_ten_strangers_that_guess_a_password_disturb_its_owner_in_nothing(
    up: Up, account: Account, ordinary: list[Account], provider: FakeOpenAI
):
    login = {"email": account.email, "password": PASSWORD}
    session = (await up.call("POST", "/auth/login", login)).body
    quiet_s = await slowest_of(up, ordinary)

    async def guess(number: int) -> Counter[str]:
        # They say that they are the owner's machine, which nobody believes.
        async with from_address(f"127.0.1.{number + 1}") as http:
            headers = {"X-Forwarded-For": "127.0.0.1"}
            return Counter(
                [await log_in(up, http, account.email, "wrong", **headers) for _ in range(GUESSES)]
            )

    guessing = asyncio.gather(*map(guess, range(STRANGERS)))
    slowest_s, rounds = 0.0, 0
    while not guessing.done() or not rounds:
        refresh = {"refresh_token": session["refresh_token"]}
        refreshed = await up.call("POST", "/auth/refresh", refresh)
        assert refreshed.status == 200, refreshed.text
        session, rounds = refreshed.body, rounds + 1
        me = await up.call("GET", "/auth/me", token=session["access_token"])
        assert (me.status, me.body["email"]) == (200, account.email)
        slowest_s = max(slowest_s, await short_answer(up, session["access_token"]))
        slowest_s = max(slowest_s, await slowest_of(up, ordinary))
        await asyncio.wait([guessing], timeout=PAUSE_S)
    came: Counter[str] = sum(await guessing, Counter())
    # All that LOGIN_FAILURES_OF_STRANGERS lets pass. Two guesses of each are to spare: on a busy
    # machine one that waits too long for the counter is 503, and is not counted.
    assert came["WRONG_PASSWORD"] == 100
    assert not patience.is_over(slowest_s - quiet_s, LONGER_S), (quiet_s, slowest_s)
    async with from_address("127.0.2.1") as elsewhere, from_address("127.0.0.1") as at_home:
        # The guesses held back who is unknown to the account, by the right password as well.
        assert await log_in(up, elsewhere, account.email, PASSWORD) == "TOO_MANY_ATTEMPTS"
        assert await log_in(up, at_home, account.email, PASSWORD) == ""
        assert await log_in(up, elsewhere, ordinary[0].email, PASSWORD) == ""


async def test_a_flood_of_passwords_from_one_address_keeps_no_other_from_logging_in(
    up: Up, account: Account
):
    came: Counter[str] = Counter()

    async def go_on(http: aiohttp.ClientSession) -> None:
        while True:
            body = {"email": f"{uuid.uuid4().hex}@example.com", "password": PASSWORD}
            async with http.post(f"{up.url}/auth/register", json=body) as answer:
                told = await answer.json()
            came["" if answer.status == 200 else told["error"]["reason"]] += 1
            if answer.status == 503:
                await asyncio.sleep(float(answer.headers["Retry-After"]))

    async with from_address("127.0.3.1") as flooding, asyncio.TaskGroup() as group:
        flood = [group.create_task(go_on(flooding)) for _ in range(FLOOD)]
        await eventually(lambda: came["OVERLOADED"], 20)
        slowest_s = 0.0
        for number in range(LOGINS):
            async with from_address(f"127.0.4.{number + 1}") as http:
                began = time.monotonic()
                assert await log_in(up, http, account.email, PASSWORD) == ""
                slowest_s = max(slowest_s, time.monotonic() - began)
        for each in flood:
            each.cancel()
    assert came["OVERLOADED"] >= FLOOD - 100  # There are a hundred places in all.
    assert not patience.is_over(slowest_s, LOGIN_S), slowest_s


async def last_event(up: Up, key: str, begun: asyncio.Event) -> tuple[JSON, float]:
    """The last event of a stream without end, and when it came."""
    body = {"message": "long", "model": "fast", "store": False}
    headers = {"Authorization": f"Bearer {key}"}
    end = ""
    async with up.http.post(f"{up.url}/chat/stream", json=body, headers=headers) as answer:
        assert answer.status == 200
        async for data in answer.content.iter_any():
            begun.set()
            end = (end + data.decode())[-2_000:]
    event: JSON = json.loads(end.strip().rsplit("data: ", 1)[1])
    return event, time.monotonic()


async def test_a_key_revoked_in_mid_stream_ends_and_no_other_loses_a_reply(
    up: Up, account: Account, stranger: Account, ordinary: list[Account], provider: FakeOpenAI
):
    quiet_s = await slowest_of(up, ordinary)
    provider.script = ENDLESS
    begun = [asyncio.Event(), asyncio.Event()]
    revoked, other = [
        asyncio.create_task(last_event(up, each.key, event))
        for each, event in zip((account, stranger), begun, strict=True)
    ]
    await asyncio.gather(*(each.wait() for each in begun))
    beside = asyncio.create_task(slowest_of(up, ordinary, ROUNDS))
    gone = await up.call("DELETE", f"/api/v1/api-keys/{account.key_id}", token=account.token)
    revoked_at = time.monotonic()
    assert gone.status == 200
    event, ended_at = await asyncio.wait_for(revoked, 20)
    assert event["error"]["reason"] == "KEY_REVOKED"
    assert not patience.is_over(ended_at - revoked_at, ENDED_WITHIN_S)
    slowest_s = await beside
    assert not patience.is_over(slowest_s - quiet_s, LONGER_S), (quiet_s, slowest_s)
    # The same stream of a key that is not revoked goes on.
    assert not other.done()
    other.cancel()
    await all_left(provider, "long")
