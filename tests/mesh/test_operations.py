"""Every operation of the OpenAPI document, called without credentials, with wrong ones and with right ones."""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.described import OPERATIONS, Operation
from tests.mesh.running import Account, Answer, Up

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
TURNS = [{"role": "user", "content": "Hello Ada"}]
# Bodies that the document has no example of.
BODIES: dict[str, Any] = {
    "CreateReply_chat_conversation": {"messages": TURNS},
    "StreamReply_api_v1_chat_stream": {"messages": TURNS},
    "StreamText": {"user_message": "Hello Ada"},
    "Summarize": {"text": "A long text"},
    "Translate": {"text": "A text", "target_language": "Spanish"},
    "UpdateChat": {"title": "Renamed"},
    "CreateTask": {"message": "Hello Ada"},
    "UpdateApiKey": {"name": "Renamed"},
    "ReplaceUserBudget": {"monthly_budget_usd": 10},
    "ChangePassword": {"current_password": "password123", "new_password": "password1234"},
    "Logout": {},
    "CancelGeneration": {},
}
# What is there to be named in a path: the field of an answer that holds its name.
MAKES: dict[str, tuple[str, object, str]] = {
    "chat_id": ("/chats", {"title": "Names"}, "id"),
    "item_id": ("/items", {"name": "Sample Item", "price": 1}, "id"),
    "key_id": ("/api/v1/api-keys", {"name": "another"}, "id"),
    "generation_id": ("/chat", {"message": "Hi", "model": "echo"}, "generation_id"),
    "task_id": ("/chat/background", {"message": "Hi", "model": "echo"}, "task_id"),
    "provider": (
        "/v1/provider-credentials",
        {"provider": "openai", "api_key": "sk-of-this-account-4321"},
        "provider",
    ),
}
Call = Callable[[str], Awaitable[Answer]]


def named(operation: Operation) -> str:
    """Names a test."""
    return operation.name


def body_of(operation: Operation) -> object:
    """A body that is good, or None where there is none."""
    if "requestBody" not in operation.told:
        return None
    if operation.name == "Register":
        return {"email": f"{uuid.uuid4().hex}@example.com", "password": "password123"}
    (content,) = operation.told["requestBody"]["content"].values()
    return content["example"] if "example" in content else BODIES[operation.name]


def somewhere(operation: Operation) -> str:
    """The path with names of what was never made."""
    path = operation.path.replace("{item_id}", "4000000").replace("{model_id}", "none")
    return re.sub(r"\{\w+\}", str(uuid.UUID(int=7)), path)


async def called(up: Up, operation: Operation, path: str, body: object, token: str = "") -> Answer:
    """The answer, which is one that the document describes."""
    if operation.name == "IssueToken":
        assert isinstance(body, dict)
        answer = await up.call("POST", path, urlencode(body).encode(), token, **FORM)
    else:
        answer = await up.call(operation.verb, path, body, token)
    operation.check(answer)
    return answer


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_without_a_credential(up: Up, provider: FakeOpenAI, operation: Operation):
    answer = await called(up, operation, somewhere(operation), body_of(operation))
    if not operation.open:
        assert (answer.status, answer.reason) == (401, "MISSING_CREDENTIALS")


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_with_a_wrong_credential(up: Up, provider: FakeOpenAI, operation: Operation):
    for wrong in ("ai_nonsense", "eyJhbGciOiJub25lIn0.e30."):
        answer = await called(up, operation, somewhere(operation), body_of(operation), wrong)
        if operation.told["security"]:
            # To API keys some doors are shut, whichever key it is.
            shut = operation.for_people and wrong.startswith("ai_")
            assert answer.status == (403 if shut else 401), answer.text


@pytest.mark.parametrize("operation", OPERATIONS, ids=named)
async def test_with_a_right_credential(
    up: Up, account: Account, admin: str, provider: FakeOpenAI, operation: Operation
):
    path, body = operation.path, body_of(operation)
    token = admin if path.startswith("/v1/users/") else account.token
    login = {"email": account.email, "password": "password123"}
    for name in re.findall(r"\{(\w+)\}", path):
        if name in MAKES:
            place, asked, field = MAKES[name]
            value = (await up.call("POST", place, asked, token)).body[field]
        elif name == "session_id":
            await up.call("POST", "/auth/login", login)
            sessions = (await up.call("GET", "/auth/sessions", token=token)).body["sessions"]
            value = next(each["id"] for each in sessions if not each["is_current"])
        else:
            value = {"user_id": account.id, "model_id": "echo"}[name]
        path = path.replace(f"{{{name}}}", str(value))
    if operation.name == "RefreshToken":
        body = {
            "refresh_token": (await up.call("POST", "/auth/login", login)).body["refresh_token"]
        }
    elif operation.name in ("Login", "IssueToken"):
        body = {"username": account.email, "password": "password123"}
    answer = await called(up, operation, path, body, token)
    assert answer.status == 200, answer.text
    if operation.for_people:
        refused = await called(up, operation, path, body, account.key)
        assert (refused.status, refused.reason) == (403, "NOT_PERMITTED")
    elif not operation.open and operation.verb == "GET":
        assert (await called(up, operation, path, body, account.key)).status == 200


def test_the_document_is_not_met_by_any_answer():
    operation = next(each for each in OPERATIONS if each.name == "GetItem")
    headers = {"Content-Type": "application/json", "X-Request-Id": "x"}
    operation.check(
        Answer(200, headers, '{"id": 1, "name": "x", "price": 1, "is_available": true}')
    )
    for wrong in (
        Answer(418, headers, "{}"),
        Answer(200, headers, '{"id": "one", "name": "x", "price": 1, "is_available": true}'),
        Answer(200, headers | {"Content-Type": "text/html"}, "{}"),
        Answer(404, headers, '{"detail": "Not Found"}'),
    ):
        with pytest.raises(AssertionError):
            operation.check(wrong)
