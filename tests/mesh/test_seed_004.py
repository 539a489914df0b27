"""Every example of the fifth document: accounts by email, chats, and messages in them."""

import uuid
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from tests.fake_openai import FakeOpenAI
from tests.mesh.running import Account, Up
from tests.mesh.test_errors import check_envelope

USER = {"email": "user@example.com", "password": "password123"}


async def test_the_usage_examples_in_their_order(plain: Up, provider: FakeOpenAI):
    made = await plain.curl("POST", "/auth/register", USER)
    assert (made.status, made.body["email"]) == (200, "user@example.com")
    login = await plain.curl("POST", "/auth/login", USER)
    assert (login.status, login.body["token_type"]) == (200, "bearer")
    token = login.body["access_token"]
    chat = await plain.curl("POST", "/chats", {"title": "My First Chat"}, token)
    assert (chat.status, chat.body["title"]) == (200, "My First Chat")
    said = {"chat_id": chat.body["id"], "message": "Hello, AI!", "model": "fast"}
    reply = await plain.curl("POST", "/chat", said, token)
    assert (reply.status, reply.body["message"]) == (200, "Hello, world!")
    assert reply.body["chat_id"] == chat.body["id"]
    listed = await plain.curl("GET", "/chats", token=token)
    assert [each["id"] for each in listed.body["chats"]] == [chat.body["id"]]


async def test_the_form_takes_the_email_as_the_username(up: Up, account: Account):
    form = urlencode({"username": account.email, "password": "password123"}).encode()
    answer = await up.call(
        "POST", "/auth/token", form, **{"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert answer.body["token_type"] == "bearer"
    token = answer.body["access_token"]
    assert (await up.curl("GET", "/auth/me", token=token)).body["email"] == account.email


async def test_the_authorize_button_asks_for_that_form(up: Up):
    document = (await up.curl("GET", "/openapi.json")).body
    flows = document["components"]["securitySchemes"]["password"]["flows"]
    assert flows["password"]["tokenUrl"] == "/auth/token"
    assert {"password": []} in document["paths"]["/chats"]["get"]["security"]


async def test_chats_and_their_messages_have_the_fields_of_the_schema(
    up: Up, account: Account, provider: FakeOpenAI
):
    chat = (await up.curl("POST", "/chats", {"title": "Names"}, account.token)).body
    assert set(chat) == {"id", "title", "created_at", "updated_at"}
    assert uuid.UUID(chat["id"])
    assert datetime.fromisoformat(chat["created_at"]) <= datetime.fromisoformat(chat["updated_at"])
    body = {"chat_id": chat["id"], "message": "Hello, AI!", "model": "fast"}
    await up.curl("POST", "/chat", body, account.token)
    got = await up.curl("GET", f"/chats/{chat['id']}/messages", token=account.token)
    fields = {"id", "chat_id", "role", "content", "created_at"}
    assert all(fields <= set(message) for message in got.body["messages"])
    assert [(each["role"], each["content"]) for each in got.body["messages"]] == [
        ("user", "Hello, AI!"),
        ("assistant", "Hello, world!"),
    ]


async def test_a_chat_is_got_renamed_and_deleted(up: Up, account: Account):
    made = await up.curl("POST", "/chats", {}, account.token)  # The title is optional.
    path = f"/chats/{made.body['id']}"
    assert (await up.curl("GET", path, token=account.token)).body == made.body
    renamed = await up.curl("PATCH", path, {"title": "Renamed"}, account.token)
    assert renamed.body["title"] == "Renamed"
    assert (await up.curl("DELETE", path, token=account.token)).status == 200
    check_envelope(await up.curl("GET", path, token=account.token), 404, "CHAT_NOT_FOUND")
    check_envelope(
        await up.curl("GET", f"{path}/messages", token=account.token), 404, "CHAT_NOT_FOUND"
    )


async def test_chats_are_their_users_alone(up: Up, account: Account, stranger: Account):
    path = f"/chats/{(await up.curl('POST', '/chats', {}, account.token)).body['id']}"
    check_envelope(await up.curl("GET", path, token=stranger.token), 404, "CHAT_NOT_FOUND")
    check_envelope(await up.curl("GET", path), 401, "MISSING_CREDENTIALS")


async def test_groq_answers_for_its_models(plain: Up, provider: FakeOpenAI):
    user = {"email": f"{uuid.uuid4().hex}@example.com", "password": "password123"}
    await plain.curl("POST", "/auth/register", user)
    token = (await plain.curl("POST", "/auth/login", user)).body["access_token"]
    body = {"message": "Hello, AI!", "model": "llama-3.3-70b-versatile"}
    answer = await plain.curl("POST", "/chat", body, token)
    assert (answer.status, answer.body["message"]) == (200, "Hello, world!")
    assert provider.requests[-1].headers["Authorization"] == "Bearer gsk_the-operators-own-key"


async def test_the_root_the_health_check_and_the_documentation(up: Up):
    for path in ("/", "/health", "/docs", "/redoc"):
        assert (await up.curl("GET", path)).status == 200


async def test_the_environment_file_is_read_but_for_its_sqlite(up: Up, tmp_path: Path):
    # Ours keeps its state in PostgreSQL, and brings one along where DATABASE_URL is not set.
    key = "GROQ_API_KEY=your_groq_api_key_here\n"
    (tmp_path / ".env").write_text(f"{key}DATABASE_URL=sqlite:///./ai_chat.db\n")
    code, output = await up.khesht("check-config", folder=tmp_path)
    assert code == 2
    assert "DATABASE_URL must start with postgresql://" in output
    (tmp_path / ".env").write_text(key)
    assert (await up.khesht("check-config", folder=tmp_path))[0] == 0
