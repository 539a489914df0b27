"""Every example of the first document: a chat, a conversation, items, and what it asks of production."""

import uuid
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.mesh.test_errors import check_envelope

CHAT = {
    "message": "Hello, how are you?",
    "system_prompt": "You are a helpful assistant.",
    "model": "gpt-3.5-turbo",
    "max_tokens": 1000,
    "temperature": 0.7,
}
CONVERSATION = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi there! How can I help you?"},
        {"role": "user", "content": "What is FastAPI?"},
    ],
    "model": "gpt-3.5-turbo",
    "max_tokens": 1000,
    "temperature": 0.7,
}
ITEM = {
    "name": "Sample Item",
    "description": "This is a sample item",
    "price": 29.99,
    "is_available": True,
}
# Ours asks for a stream and its usage always, whatever its caller asked for.
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
ANSWER = Script(model="gpt-3.5-turbo-0613", pieces=("FastAPI is", " a modern framework"))


async def test_the_addresses_that_are_open_answer(up: Up):
    welcome = await up.curl("GET", "/")
    assert (welcome.status, welcome.body["name"]) == (200, "khesht")
    health = await up.curl("GET", "/health")
    assert (health.status, health.body["status"]) == (200, "healthy")
    assert health.body["providers"]["openai"] == "configured"
    for path in ("/docs", "/redoc"):
        page = await up.curl("GET", path)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_a_simple_chat_request(up: Up, account: Account, provider: FakeOpenAI):
    # Ours asks for a credential here and at all that is not open.
    check_envelope(await up.curl("POST", "/chat", CHAT), 401, "MISSING_CREDENTIALS")
    answer = await up.curl("POST", "/chat", CHAT, account.key)
    assert (answer.status, answer.body["message"]) == (200, "Hello, world!")
    assert provider.requests[-1].body == {
        "model": "gpt-3.5-turbo",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Hello, how are you?"},
        ],
        "max_tokens": 1000,
        "temperature": 0.7,
        **STREAMED,
    }


async def test_a_conversation_request(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = ANSWER
    answer = await up.curl("POST", "/chat/conversation", CONVERSATION, account.token)
    assert answer.status == 200
    assert provider.requests[-1].body == CONVERSATION | STREAMED
    assert "chat_id" not in answer.body  # Conversations are not stored unless `store` is true.


@pytest.mark.parametrize(("path", "body"), [("/chat", CHAT), ("/chat/conversation", CONVERSATION)])
async def test_the_structured_response(
    up: Up, account: Account, provider: FakeOpenAI, path: str, body: object
):
    provider.script = ANSWER
    reply = (await up.curl("POST", path, body, account.key)).body
    # Ours has ids besides: of the reply, of its generation, and of the chat that keeps it.
    shown = {name: reply.pop(name) for name in set(reply) - {"id", "generation_id", "chat_id"}}
    assert shown == {
        "message": "FastAPI is a modern framework",
        "model": "gpt-3.5-turbo-0613",
        "usage": {"prompt_tokens": 25, "completion_tokens": 150, "total_tokens": 175},
        "finish_reason": "stop",
    }
    assert all(uuid.UUID(each) for each in reply.values())


async def test_roles_are_those_of_the_enum(up: Up, account: Account, provider: FakeOpenAI):
    for role, status in (("system", 200), ("user", 200), ("assistant", 200), ("robot", 400)):
        body = {"messages": [{"role": role, "content": "x"}, {"role": "user", "content": "y"}]}
        assert (await up.curl("POST", "/chat/conversation", body, account.key)).status == status


async def test_an_item_is_created_and_all_are_got(up: Up, account: Account):
    made = await up.curl("POST", "/items", ITEM, account.key)
    assert (made.status, type(made.body["id"])) == (200, int)
    assert made.body == {"id": made.body["id"], **ITEM}
    # A page of them; the document's bare list has no place for the token of the next page.
    got = await up.curl("GET", "/items", token=account.key)
    assert got.body == {"items": [made.body], "next_page_token": ""}


async def test_an_item_is_got_updated_and_deleted(up: Up, account: Account):
    path = f"/items/{(await up.curl('POST', '/items', ITEM, account.key)).body['id']}"
    assert (await up.curl("GET", path, token=account.key)).body["name"] == "Sample Item"
    put = await up.curl("PUT", path, ITEM | {"price": 5, "is_available": False}, account.key)
    assert (put.body["price"], put.body["is_available"]) == (5, False)
    assert (await up.curl("DELETE", path, token=account.key)).status == 200
    check_envelope(await up.curl("GET", path, token=account.key), 404, "ITEM_NOT_FOUND")


async def test_an_item_has_the_required_fields_and_the_defaults_of_its_model(
    up: Up, account: Account
):
    made = await up.curl("POST", "/items", {"name": "bare", "price": 1}, account.key)
    assert made.body == {"id": made.body["id"], "name": "bare", "price": 1, "is_available": True}
    for missing in ("name", "price"):
        body = {name: value for name, value in ITEM.items() if name != missing}
        answer = await up.curl("POST", "/items", body, account.key)
        assert missing in str(check_envelope(answer, 400, "INVALID_FIELDS")["details"])


async def test_the_environment_file_is_read(up: Up, tmp_path: Path):
    # HOST and PORT are GATEWAY_PORT here, and a mesh of one machine listens on that machine alone.
    (tmp_path / ".env").write_text(
        "OPENAI_API_KEY=your_openai_api_key_here\nDEBUG=True\nHOST=0.0.0.0\nPORT=8000\n"
    )
    code, output = await up.khesht("check-config", folder=tmp_path)
    assert (code, output.splitlines()) == (
        0,
        [
            "note: HOST in .env is no setting of khesht",
            "note: PORT in .env is no setting of khesht",
            "the settings are good",
        ],
    )
    (tmp_path / ".env").write_text("DEBUG=maybe\n")
    code, output = await up.khesht("check-config", folder=tmp_path)
    assert code == 2
    assert "DEBUG" in output
