"""Revoked means ended: what runs, waits and is read for who may not call any more ends within 2 seconds."""

import asyncio
import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import psycopg
import pytest

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from mesh import errors, status
from services.chat.commands.budget import Spender
from services.chat.commands.revocation import Ended, Revocation
from tests import harness
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Metadata, Person
from tests.support import eventually

ENDLESS = Script(pieces=("word ",) * 2_000, pause=0.02)
# Promised are 2 seconds, on a machine that has nothing else to do.
WITHIN_S = 2.0


@pytest.fixture
async def keys(mesh: harness.Mesh) -> keys_grpc.KeysServiceStub:
    return keys_grpc.KeysServiceStub(await mesh.channel("keys"))


@pytest.fixture
async def auth(mesh: harness.Mesh) -> auth_grpc.AuthServiceStub:
    return auth_grpc.AuthServiceStub(await mesh.channel("auth"))


@pytest.fixture
async def tasks(mesh: harness.Mesh) -> tasks_grpc.TasksServiceStub:
    return tasks_grpc.TasksServiceStub(await mesh.channel("chat"))


@pytest.fixture
async def generations(mesh: harness.Mesh) -> generations_grpc.GenerationsServiceStub:
    return generations_grpc.GenerationsServiceStub(await mesh.channel("chat"))


async def revoke(keys, person: Person) -> None:
    request = keys_pb.RevokeApiKeyRequest(key_id=person.key_id)
    await keys.RevokeApiKey(request, timeout=5, metadata=person.by_token)


class Reader:
    """Reads a stream to its end: what came, and how and when it ended."""

    def __init__(self, call) -> None:
        self.events: list = []
        self.reason = ""
        self.ended_at = 0.0
        self._task = asyncio.create_task(self._read(call))

    async def _read(self, call) -> None:
        try:
            async for event in call:
                self.events.append(event)
        except grpc.aio.AioRpcError as error:
            self.reason = status.reason_of(error)
        self.ended_at = time.monotonic()

    async def begun(self, count: int = 3) -> None:
        await eventually(lambda: len(self.events) >= count, within=10)

    async def end(self, within: float = 20) -> float:
        await asyncio.wait_for(self._task, within)
        return self.ended_at

    def leave(self) -> None:
        self._task.cancel()


async def streamed(mesh: harness.Mesh, metadata: Metadata) -> Reader:
    stub = pb_grpc.ChatServiceStub(await mesh.channel("chat"))
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    return Reader(stub.StreamReply(request, timeout=60, metadata=metadata))


async def plain(mesh: harness.Mesh, metadata: Metadata) -> Reader:
    stub = pb_grpc.ChatServiceStub(await mesh.channel("chat"))
    request = pb.StreamTextRequest(user_message="Hi", model=MODEL)
    return Reader(stub.StreamText(request, timeout=60, metadata=metadata))


async def completion(mesh: harness.Mesh, metadata: Metadata) -> Reader:
    stub = completions_grpc.CompletionsServiceStub(await mesh.channel("chat"))
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    request = completions_pb.CreateChatCompletionRequest()
    request.body.data = json.dumps(asked).encode()
    return Reader(stub.CreateChatCompletion(request, timeout=60, metadata=metadata))


def told(reader: Reader) -> str:
    """The reason in the last event."""
    last = reader.events[-1]
    if isinstance(last, pb.StreamReplyResponse):
        return str(last.error.reason)
    text = last.body.data.decode()
    if isinstance(last, pb.StreamTextResponse):
        return str(text.partition("[")[2].partition(":")[0])
    return str(json.loads(text.removeprefix("data: "))["error"]["reason"])


@pytest.mark.parametrize("surface", [streamed, plain, completion])
async def test_a_revoked_keys_stream_ends_with_an_event_and_others_go_on(
    mesh: harness.Mesh,
    keys,
    person: Person,
    stranger: Person,
    provider: FakeOpenAI,
    records,
    surface,
):
    provider.script = ENDLESS
    reader = await surface(mesh, person.by_key)
    await reader.begun()
    other, by_token = await surface(mesh, stranger.by_key), await surface(mesh, person.by_token)
    await other.begun()
    await by_token.begun()
    await revoke(keys, person)
    revoked_at = time.monotonic()
    assert await reader.end() - revoked_at < WITHIN_S
    assert (reader.reason, told(reader)) == ("KEY_REVOKED", "KEY_REVOKED")
    await eventually(lambda: provider.requests[0].closed_at)
    (record,) = await records(1)
    assert (record.status, record.basis, record.key_id) == ("cancelled", "estimated", person.key_id)
    assert 0 < record.completion_tokens <= provider.requests[0].sent
    for each, request in ((other, provider.requests[1]), (by_token, provider.requests[2])):
        assert not each.ended_at
        assert request.closed_at is None
        each.leave()


async def test_without_looking_a_revoked_keys_stream_goes_on(
    mesh: harness.Mesh, keys, person: Person, provider: FakeOpenAI, monkeypatch
):
    async def nobody(_: Revocation, __: object) -> Ended:
        return Ended()

    monkeypatch.setattr(Revocation, "ended", nobody)
    provider.script = ENDLESS
    reader = await streamed(mesh, person.by_key)
    await reader.begun()
    await revoke(keys, person)
    with pytest.raises(AssertionError):
        await eventually(lambda: reader.ended_at, within=2 * WITHIN_S)
    reader.leave()


async def test_who_waits_for_a_whole_reply_is_told(
    mesh: harness.Mesh, chat, keys, person: Person, provider: FakeOpenAI
):
    provider.script = ENDLESS
    request = pb.CreateReplyRequest(message="Hi", model=MODEL)
    call = asyncio.ensure_future(chat.CreateReply(request, timeout=60, metadata=person.by_key))
    await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
    await revoke(keys, person)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert status.reason_of(refused.value) == "KEY_REVOKED"


async def test_what_is_to_finish_without_its_reader_ends_too(
    mesh: harness.Mesh, chat, keys, person: Person, generations, provider: FakeOpenAI
):
    provider.script = ENDLESS
    request = pb.StreamReplyRequest(message="Hi", model=MODEL, on_disconnect="finish")
    call = chat.StreamReply(request, timeout=60, metadata=person.by_key)
    first = await anext(aiter(call))
    call.cancel()
    await revoke(keys, person)

    async def ended():
        asked = generations_pb.GetGenerationRequest(generation_id=first.generation_id)
        made = await generations.GetGeneration(asked, timeout=5, metadata=person.by_token)
        return made if made.status != "running" else None

    made = await eventually(ended)
    assert (made.status, made.reason) == ("cancelled", "KEY_REVOKED")
    assert made.text.startswith("word ")
    await eventually(lambda: provider.requests[0].closed_at)


async def test_who_follows_by_a_revoked_key_reads_no_further(
    mesh: harness.Mesh, keys, person: Person, generations, provider: FakeOpenAI
):
    provider.script = ENDLESS
    run = await streamed(mesh, person.by_token)
    await run.begun()
    request = generations_pb.FollowGenerationRequest(generation_id=run.events[0].generation_id)
    follower = Reader(generations.FollowGeneration(request, timeout=60, metadata=person.by_key))
    await follower.begun()
    await revoke(keys, person)
    await follower.end(within=10)
    assert (follower.reason, follower.events[-1].error.reason) == ("KEY_REVOKED", "KEY_REVOKED")
    assert not run.ended_at
    run.leave()


async def task_of(tasks, person: Person, task_id: str):
    request = tasks_pb.GetTaskRequest(task_id=task_id)
    return await tasks.GetTask(request, timeout=5, metadata=person.by_token)


async def create(tasks, metadata: Metadata) -> str:
    request = tasks_pb.CreateTaskRequest(message="Hi", model=MODEL)
    return str((await tasks.CreateTask(request, timeout=5, metadata=metadata)).task_id)


async def test_a_revoked_keys_tasks_end_whether_they_wait_or_run(
    mesh: harness.Mesh, keys, tasks, person: Person, provider: FakeOpenAI, records
):
    provider.script = ENDLESS
    async with harness.replica(mesh, "worker") as working:
        running = await create(tasks, person.by_key)
        await eventually(lambda: provider.requests and provider.requests[0].sent > 3)
        await working.servers["worker"].stop(lame_duck=0, grace=0)
    waiting = [await create(tasks, person.by_key) for _ in range(11)]
    kept = await create(tasks, person.by_token)
    async with harness.replica(mesh, "worker"):
        await eventually(lambda: len(provider.requests) >= 14, within=10)
        late = [await create(tasks, person.by_key) for _ in range(20)]
        await revoke(keys, person)
        revoked_at = time.monotonic()
        for task_id in (running, *waiting, *late):

            async def over(task_id: str = task_id):
                task = await task_of(tasks, person, task_id)
                return task if task.status not in ("pending", "running") else None

            task = await eventually(over)
            assert (task.status, task.error.reason) == ("cancelled", "KEY_REVOKED")
        assert time.monotonic() - revoked_at < 2 * WITHIN_S
        assert (await task_of(tasks, person, kept)).status in ("running", "pending")
        cancel = tasks_pb.CancelTaskRequest(task_id=kept)
        await tasks.CancelTask(cancel, timeout=10, metadata=person.by_token)


async def test_waiting_tasks_of_a_revoked_key_end_where_no_worker_runs(
    mesh: harness.Mesh, keys, tasks, person: Person, provider: FakeOpenAI
):
    taken = [await create(tasks, person.by_key) for _ in range(5)]
    await revoke(keys, person)

    async def all_cancelled() -> bool:
        found = [await task_of(tasks, person, each) for each in taken]
        return {(each.status, each.error.reason) for each in found} == {
            ("cancelled", "KEY_REVOKED")
        }

    await eventually(all_cancelled)
    async with harness.replica(mesh, "worker"):
        again = await create(tasks, person.by_token)

        async def completed() -> bool:
            return (await task_of(tasks, person, again)).status == "completed"

        await eventually(completed, within=20)
    assert len(provider.requests) == 1


async def test_a_key_that_expires_while_it_streams_ends_its_stream(
    mesh: harness.Mesh, keys, person: Person, provider: FakeOpenAI
):
    provider.script = ENDLESS
    request = keys_pb.CreateApiKeyRequest(name="short")
    request.expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=3))
    made = await keys.CreateApiKey(request, timeout=5, metadata=person.by_token)
    reader = await streamed(mesh, harness.bearer(made.key))
    await reader.end()
    assert (reader.reason, told(reader)) == ("KEY_EXPIRED", "KEY_EXPIRED")
    assert datetime.now(UTC) > request.expires_at.ToDatetime(UTC)


async def test_the_secret_before_a_rotation_ends_its_streams_after_its_grace(
    mesh: harness.Mesh, keys, person: Person, provider: FakeOpenAI
):
    provider.script = ENDLESS
    old = await streamed(mesh, person.by_key)
    await old.begun()
    request = keys_pb.RotateApiKeyRequest(key_id=person.key_id, grace_period_seconds=1)
    rotated = await keys.RotateApiKey(request, timeout=5, metadata=person.by_token)
    new = await streamed(mesh, harness.bearer(rotated.key))
    await new.begun()
    await old.end()
    assert old.reason == "KEY_EXPIRED"
    assert not new.ended_at
    # And once more, without a grace.
    again = keys_pb.RotateApiKeyRequest(key_id=person.key_id, grace_period_seconds=0)
    await keys.RotateApiKey(again, timeout=5, metadata=person.by_token)
    await new.end()
    assert new.reason == "KEY_EXPIRED"


async def test_a_session_that_is_left_ends_its_streams_and_no_tasks_of_the_account(
    mesh: harness.Mesh, auth, tasks, person: Person, provider: FakeOpenAI
):
    provider.script = ENDLESS
    reader, by_key = await streamed(mesh, person.by_token), await streamed(mesh, person.by_key)
    await reader.begun()
    await by_key.begun()
    task_id = await create(tasks, person.by_token)
    await auth.Logout(auth_pb.LogoutRequest(), timeout=5, metadata=person.by_token)
    await reader.end()
    assert (reader.reason, told(reader)) == ("SESSION_ENDED", "SESSION_ENDED")
    assert not by_key.ended_at
    by_key.leave()
    request = tasks_pb.GetTaskRequest(task_id=task_id)
    task = await tasks.GetTask(request, timeout=5, metadata=person.by_key)
    assert task.status == "pending"
    cancel = tasks_pb.CancelTaskRequest(task_id=task_id)
    await tasks.CancelTask(cancel, timeout=10, metadata=person.by_key)


async def test_an_account_that_is_gone_ends_all_that_runs_and_waits_for_it(
    mesh: harness.Mesh, tasks, person: Person, provider: FakeOpenAI, admin_dsn: str
):
    provider.script = ENDLESS
    by_key, by_token = await streamed(mesh, person.by_key), await streamed(mesh, person.by_token)
    await by_key.begun()
    await by_token.begun()
    task_id = await create(tasks, person.by_key)
    with psycopg.connect(admin_dsn) as connection:
        connection.execute("DELETE FROM auth.sessions WHERE user_id = %s", [person.id])
        connection.execute("DELETE FROM auth.users WHERE id = %s", [person.id])
    for reader in (by_key, by_token):
        await reader.end()
        assert told(reader) in ("ACCOUNT_ENDED", "SESSION_ENDED")
    assert told(by_key) == "ACCOUNT_ENDED"

    async def cancelled() -> bool:
        task = await task_of(tasks, person, task_id)
        return (task.status, task.error.reason) == ("cancelled", "ACCOUNT_ENDED")

    await eventually(cancelled)


def test_an_account_that_ended_comes_before_its_keys_and_sessions():
    user, key, session = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()
    caller = Spender(user, key, secret_id="a", session_id=session)
    assert Ended().error_of(caller) is None
    other = ("ACCOUNT_ENDED", "gone")
    assert Ended({uuid.uuid4(): other}, {(key, "b"): other}).error_of(caller) is None
    of_session, of_key = ("SESSION_ENDED", "left"), ("KEY_REVOKED", "revoked")
    for ended, reason in (
        (Ended({user: other, session: of_session}, {(key, "a"): of_key}), "ACCOUNT_ENDED"),
        (Ended({session: of_session}, {(key, "a"): of_key}), "SESSION_ENDED"),
        (Ended({}, {(key, "a"): of_key}), "KEY_REVOKED"),
    ):
        error = ended.error_of(caller)
        assert isinstance(error, errors.Unauthenticated)
        assert error.reason == reason
