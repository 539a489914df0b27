"""Errors that a provider tells by status or in its answer: whose fault they are, on each surface."""

import json
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.rpc import error_details_pb2, status_pb2

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from khesht.keys.v1 import provider_credentials_service_pb2 as keys_pb
from khesht.keys.v1 import provider_credentials_service_pb2_grpc as keys_grpc
from tests import harness
from tests.fake_openai import FakeOpenAI, Script, cut
from tests.integration.chat.streams import MODEL, events_of
from tests.integration.conftest import PROVIDER_KEY, Person
from tests.odd_streams import chunk, event
from tests.support import eventually

OWN = "sk-the-callers-own-key"
Form = Callable[[dict[str, object]], Script]
JSON = {"Content-Type": "application/json"}

FORMS: dict[str, Form] = {
    "an event": lambda error: Script(exact=cut(event({"error": error}), 5)),
    "an event that is called so": lambda error: Script(exact=(b"event: error\n" + event(error),)),
    "fields of a chunk": lambda error: Script(exact=(event({"object": "error", **error}),)),
    "fields of a chunk without choices": lambda error: Script(
        exact=(event({"choices": None, **error}),)
    ),
    "beside a choice": lambda error: Script(
        exact=(event({"error": error, "choices": [{"delta": {}, "finish_reason": "error"}]}),)
    ),
    "in a choice": lambda error: Script(
        exact=(event({"choices": [{"delta": {}, "error": error}]}),)
    ),
    "one value": lambda error: Script(
        exact=cut(json.dumps({"error": error}).encode(), 7), headers=JSON
    ),
    "one value that is called a stream": lambda error: Script(
        exact=(json.dumps({"error": error}, indent=1).encode(),)
    ),
    "a list of one": lambda error: Script(exact=(json.dumps([{"error": error}]).encode(),)),
}
CODES = [
    (400, "FAILED_PRECONDITION", "PROVIDER_REFUSED"),
    ("context_length_exceeded", "FAILED_PRECONDITION", "PROVIDER_REFUSED"),
    (413, "FAILED_PRECONDITION", "PROVIDER_REFUSED"),
    (422, "FAILED_PRECONDITION", "PROVIDER_REFUSED"),
    (401, "UNAVAILABLE", "PROVIDER_CREDENTIALS"),
    ("invalid_api_key", "UNAVAILABLE", "PROVIDER_CREDENTIALS"),
    (404, "NOT_FOUND", "PROVIDER_MODEL_NOT_FOUND"),
    ("model_not_found", "NOT_FOUND", "PROVIDER_MODEL_NOT_FOUND"),
    (429, "RESOURCE_EXHAUSTED", "PROVIDER_RATE_LIMITED"),
    ("rate_limit_exceeded", "RESOURCE_EXHAUSTED", "PROVIDER_RATE_LIMITED"),
    ("insufficient_quota", "RESOURCE_EXHAUSTED", "PROVIDER_RATE_LIMITED"),
    (500, "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    ("server_error", "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    (503, "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    ("odd", "UNAVAILABLE", "PROVIDER_BROKE_OFF"),
]


@pytest.fixture
async def completions(mesh: harness.Mesh) -> completions_grpc.CompletionsServiceStub:
    return completions_grpc.CompletionsServiceStub(await mesh.channel("chat"))


def calls(chat, completions, person: Person, **more: str) -> Iterator[object]:
    """A call on each surface, one after another."""
    metadata = person.by_key
    reply = pb.CreateReplyRequest(message="Hi", model=MODEL, **more)
    yield chat.CreateReply(reply, timeout=10, metadata=metadata)
    stream = pb.StreamReplyRequest(message="Hi", model=MODEL, **more)
    yield events_of(chat.StreamReply(stream, timeout=10, metadata=metadata))
    own = (("x-provider-key", more["api_key"]),) if more else ()
    for streamed in (True, False):
        asked = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": streamed,
        }
        body = HttpBody(content_type="application/json", data=json.dumps(asked).encode())
        request = completions_pb.CreateChatCompletionRequest(body=body)
        yield events_of(
            completions.CreateChatCompletion(request, timeout=10, metadata=(*metadata, *own))
        )


def details(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert status_pb2.Status.FromString(value).details[0].Unpack(info)
    return info


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("code", [429, "context_length_exceeded"])
async def test_an_error_is_told_in_every_form(
    chat, completions, person: Person, provider: FakeOpenAI, records, form: str, code: object
):
    expected = next((status, reason) for each, status, reason in CODES if each == code)
    told = {"message": f"no, {PROVIDER_KEY} has had enough", "code": code, "param": "messages"}
    provider.script = FORMS[form](told)
    for call in calls(chat, completions, person):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        info = details(failed.value)
        assert (failed.value.code().name, info.reason) == expected
        assert str(failed.value.details()).endswith("no, … has had enough")
        assert info.metadata["provider_code"] == str(code)
        assert info.metadata["provider_param"] == "messages"
    told_of = await records(4)
    assert {(each.status, each.total_tokens) for each in told_of} == {("failed", 0)}


@pytest.mark.parametrize(
    ("code", "status", "reason", "http"),
    [(*each, False) for each in CODES]
    + [(*each, True) for each in CODES if isinstance(each[0], int)],
)
async def test_an_error_has_the_status_of_its_code(
    chat,
    completions,
    person: Person,
    provider: FakeOpenAI,
    code: object,
    status: str,
    reason: str,
    http: bool,
):
    error = {"message": "no", "code": code, "type": "t"}
    provider.script = FORMS["an event"](error)
    if http:
        provider.script = Script(status=int(str(code)), body=json.dumps({"error": error}))
    for call in calls(chat, completions, person):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        info = details(failed.value)
        assert (failed.value.code().name, info.reason) == (status, reason)
        is_hidden = reason == "PROVIDER_CREDENTIALS"
        assert info.metadata.get("provider_code") == (None if is_hidden else str(code))


@pytest.mark.parametrize(("code", "status", "reason"), CODES)
async def test_an_error_in_the_middle_is_the_last_event(
    chat,
    completions,
    person: Person,
    provider: FakeOpenAI,
    records,
    code: object,
    status: str,
    reason: str,
):
    broken = event({"error": {"message": "no", "code": code, "param": "n"}})
    provider.script = Script(exact=(chunk("Hello"), 0.05, broken, chunk("never")))
    events: list[pb.StreamReplyResponse] = []
    with pytest.raises(grpc.aio.AioRpcError):
        request = pb.StreamReplyRequest(message="Hi", model=MODEL)
        async for each in chat.StreamReply(request, timeout=10, metadata=person.by_key):
            events.append(each)
    assert "".join(each.token for each in events) == "Hello"
    assert (events[-1].error.status, events[-1].error.reason) == (status, reason)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    data = HttpBody(content_type="application/json", data=json.dumps(body).encode())
    relayed = b""
    with pytest.raises(grpc.aio.AioRpcError):
        async for piece in completions.CreateChatCompletion(
            completions_pb.CreateChatCompletionRequest(body=data),
            timeout=10,
            metadata=person.by_key,
        ):
            relayed += piece.body.data
    assert chunk("Hello") in relayed
    assert chunk("never") not in relayed
    error = json.loads(relayed.rstrip().rsplit(b"data: ", 1)[1])["error"]
    assert (error["status"], error["reason"]) == (status, reason)
    if reason != "PROVIDER_CREDENTIALS":
        assert error["details"][0]["metadata"] == {
            "provider": "openai",
            "provider_code": str(code),
            "provider_param": "n",
        }
    told = await records(2)
    assert {(each.status, each.basis, each.completion_tokens) for each in told} == {
        ("failed", "estimated", 1)
    }


@pytest.mark.parametrize("status", [401, 403])
async def test_a_callers_own_key_that_is_refused_is_theirs_to_mend(
    chat, completions, person: Person, provider: FakeOpenAI, status: int
):
    body = {"error": {"message": f"Incorrect API key provided: {OWN}", "code": "invalid_api_key"}}
    for script in (Script(status=status, body=json.dumps(body)), Script(exact=(event(body),))):
        provider.script = script
        for call in calls(chat, completions, person, api_key=OWN):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            info = details(failed.value)
            assert (failed.value.code().name, info.reason) == (
                "UNAUTHENTICATED",
                "PROVIDER_KEY_REFUSED",
            )
            assert info.metadata["provider_code"] == "invalid_api_key"
            assert OWN not in str(failed.value.details())
    assert {request.headers["Authorization"] for request in provider.requests} == {f"Bearer {OWN}"}


@pytest.mark.parametrize("character", ["x ", "é", "語", "😀", "\0", '"', "\\ud83d"])
async def test_an_error_of_any_length_arrives(
    chat, completions, person: Person, provider: FakeOpenAI, character: str
):
    text = character * 4_000
    body = (
        f'{{"error": {{"message": {json.dumps(text)}, "code": {json.dumps(text)}, "param": "n"}}}}'
    )
    for script in (Script(status=400, body=body), Script(exact=(body.encode(),))):
        provider.script = script
        for call in calls(chat, completions, person):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert details(failed.value).reason in ("PROVIDER_REFUSED", "PROVIDER_BROKE_OFF")
            assert details(failed.value).metadata["provider_param"] == "n"
            assert len(str(failed.value.details())) < 400


async def test_a_stored_key_that_is_refused_is_its_accounts_to_mend(
    mesh: harness.Mesh, chat, completions, person: Person, provider: FakeOpenAI
):
    keys = keys_grpc.ProviderCredentialsServiceStub(await mesh.channel("keys"))
    stored = keys_pb.StoreProviderCredentialRequest(provider="openai", api_key=OWN)
    await keys.StoreProviderCredential(stored, timeout=5, metadata=person.by_token)
    provider.script = Script(status=401, body=json.dumps({"error": {"message": f"no {OWN}"}}))

    async def refused() -> bool:
        for call in calls(chat, completions, person):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await call
            assert OWN not in str(failed.value.details())
            if failed.value.code() is not grpc.StatusCode.UNAUTHENTICATED:
                return False  # What was known of the account is not a second old.
            assert details(failed.value).reason == "PROVIDER_KEY_REFUSED"
        return True

    assert await eventually(refused)


@pytest.mark.parametrize(
    ("script", "seconds"),
    [
        (Script(status=429, headers={"Retry-After": "30"}), 30),
        (Script(status=429, headers={"x-ratelimit-reset-requests": "1m30s"}), 90),
        (Script(status=429, headers={"retry-after-ms": "20500"}), 21),
        (Script(status=429, body='{"error": {"message": "Please try again in 6.5s."}}'), 7),
        (FORMS["an event"]({"message": "Please try again in 40s.", "code": 429}), 40),
        (Script(status=429, headers={"Retry-After": "99999999"}), 3600),
        (Script(status=503, headers={"Retry-After": "30"}), 30),
    ],
)
async def test_when_to_come_again_is_handed_on(
    chat, completions, person: Person, provider: FakeOpenAI, script: Script, seconds: int
):
    provider.script = script
    for call in calls(chat, completions, person):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        trailers = dict(failed.value.trailing_metadata() or ())
        retry = error_details_pb2.RetryInfo()
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        assert status.details[-1].Unpack(retry)
        assert retry.retry_delay.seconds == seconds
    assert len(provider.requests) == 4  # That is longer than a caller waits for another try.


async def test_a_task_that_is_limited_is_tried_again_and_told_so(
    mesh: harness.Mesh, person: Person, provider: FakeOpenAI
):
    provider.script = Script(status=429, body='{"error": {"message": "slow down", "code": "c"}}')
    tasks = tasks_grpc.TasksServiceStub(await mesh.channel("chat"))
    async with harness.replica(mesh, "worker"):
        request = tasks_pb.CreateTaskRequest(message="Hi", model=MODEL)
        taken = await tasks.CreateTask(request, timeout=5, metadata=person.by_key)

        async def over():
            got = tasks_pb.GetTaskRequest(task_id=taken.task_id)
            task = await tasks.GetTask(got, timeout=5, metadata=person.by_key)
            return task if task.status not in ("pending", "running") else None

        task = await eventually(over, within=30)
    assert (task.error.status, task.error.reason) == ("RESOURCE_EXHAUSTED", "PROVIDER_RATE_LIMITED")
    assert task.error.message == "openai is rate limiting: slow down"
    info = error_details_pb2.ErrorInfo()
    assert task.error.details[0].Unpack(info)
    assert info.metadata["provider_code"] == "c"
    assert len(provider.requests) >= 3


async def test_a_key_that_is_told_in_an_answer_is_hidden(
    chat, completions, person: Person, provider: FakeOpenAI
):
    choice = {"index": 0, "delta": {"content": f"by {PROVIDER_KEY}"}, "finish_reason": "stop"}
    told = event({"choices": [choice], "model": PROVIDER_KEY, "debug": PROVIDER_KEY})
    line = b"data: the key is " + PROVIDER_KEY.encode() + b"\n\n"
    provider.script = Script(exact=cut(line + told + b"data: [DONE]\n\n", 5))
    for call in calls(chat, completions, person):
        got = str(await call)
        assert "by " in got
        assert PROVIDER_KEY not in got


async def test_what_was_used_by_an_answer_without_text_is_charged_on_every_surface(
    chat, completions, person: Person, provider: FakeOpenAI, records
):
    used = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    provider.script = Script(exact=(event({"choices": [], "usage": used}),))
    for call in calls(chat, completions, person):
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    told = await records(4)
    assert [(each.status, each.prompt_tokens, each.completion_tokens) for each in told] == [
        ("failed", 11, 7)
    ] * 4
