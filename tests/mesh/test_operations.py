"""Every operation of the OpenAPI document, called without credentials, with wrong ones and with right ones."""

import re
import uuid
from urllib.parse import urlencode

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.asked import asked, body_of
from tests.mesh.described import OPERATIONS, Operation
from tests.mesh.running import Account, Answer, Up

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def named(operation: Operation) -> str:
    """Names a test."""
    return operation.name


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
    call = await asked(up, account, admin, operation)
    path, body, token = operation.path, call.body, call.token
    for name, value in call.names.items():
        path = path.replace(f"{{{name}}}", value)
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
