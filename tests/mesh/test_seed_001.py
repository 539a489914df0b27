"""Every example of the second document: accounts, a chat, a task in the background, its script and its test file."""

import asyncio
import uuid
from pathlib import Path

import httpx

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.mesh.test_errors import check_envelope
from tests.support import eventually

USER = {"username": "testuser", "email": "test@example.com", "password": "password123"}
LOGIN = {"username": "testuser", "password": "password123"}
CHAT = {
    "message": "Hello, how are you?",
    "model": "gpt-3.5-turbo",
    "max_tokens": 150,
    "temperature": 0.7,
}
TASK = {"message": "Process this in background", "model": "gpt-3.5-turbo"}


async def test_the_usage_examples_in_their_order(plain: Up, provider: FakeOpenAI):
    made = await plain.curl("POST", "/auth/register", USER)
    assert made.status == 200
    assert (made.body["username"], made.body["email"]) == ("testuser", "test@example.com")
    assert set(made.body) == {"id", "username", "email", "role", "created_at"}
    login = await plain.curl("POST", "/auth/login", LOGIN)
    assert login.status == 200
    token = login.body["access_token"]
    assert len(token.split(".")) == 3  # header.payload.signature
    reply = await plain.curl("POST", "/chat", CHAT, token)
    assert (reply.status, reply.body["message"]) == (200, "Hello, world!")
    assert provider.requests[-1].body["max_tokens"] == 150
    task = await plain.curl("POST", "/chat/background", TASK, token)
    assert (task.status, set(task.body)) == (200, {"task_id", "status"})

    async def completed() -> dict[str, object] | None:
        got = await plain.curl("GET", f"/chat/tasks/{task.body['task_id']}", token=token)
        assert got.status == 200
        assert got.body["status"] in ("pending", "running", "completed")
        return got.body if got.body["status"] == "completed" else None

    done = await eventually(completed, within=30)
    assert done["result"]["message"] == "Hello, world!"
    history = await plain.curl("GET", "/conversations", token=token)
    assert [chat["title"] for chat in history.body["chats"]] == [TASK["message"], CHAT["message"]]


async def test_the_manual_testing_script(plain: Up, provider: FakeOpenAI):
    async with httpx.AsyncClient() as client:
        # It only prints this status: its user may be there from the example before.
        register = await client.post(f"{plain.url}/auth/register", json=USER)
        assert register.status_code in (200, 409)
        login = await client.post(f"{plain.url}/auth/login", json=LOGIN)
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        body = {"message": "Hello, AI!", "model": "gpt-3.5-turbo"}
        chat = await client.post(f"{plain.url}/chat", headers=headers, json=body)
        assert (chat.status_code, chat.json()["message"]) == (200, "Hello, world!")


async def test_the_tests_of_the_simple_test_file(up: Up):
    def synchronous() -> None:
        with httpx.Client(base_url=up.url) as client:
            health = client.get("/health")
            assert (health.status_code, health.json()["status"]) == (200, "healthy")
            made = client.post("/auth/register", json=USER)
            assert made.status_code == 200
            assert made.json()["username"] == "testuser"
            assert made.json()["email"] == "test@example.com"

    await asyncio.to_thread(synchronous)
    flow = {"username": "flowtest", "email": "flow@example.com", "password": "password123"}
    async with httpx.AsyncClient(base_url=up.url) as client:
        assert (await client.post("/auth/register", json=flow)).status_code == 200
        login = await client.post(
            "/auth/login", json={"username": "flowtest", "password": "password123"}
        )
        assert login.status_code == 200
        headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
        assert (await client.get("/conversations", headers=headers)).status_code == 200


async def test_errors_of_the_provider_are_told_apart(
    up: Up, account: Account, provider: FakeOpenAI
):
    # The document answers 429 and, with the provider's own text, 500. Ours says 503 for what is
    # the provider's fault, and by the reason what it did.
    limited, failed = (429, "PROVIDER_RATE_LIMITED"), (503, "PROVIDER_UNAVAILABLE")
    for status, expected in ((429, limited), (500, failed)):
        provider.script = Script(status=status, body='{"error": {"message": "inner text"}}')
        answer = await up.curl("POST", "/chat", CHAT, account.key)
        check_envelope(answer, *expected)
        assert "inner text" in answer.text


async def test_rate_limiting(up: Up, account: Account):
    asked = {"name": "limited", "rate_limit_per_minute": 1}
    key = (await up.call("POST", "/api/v1/api-keys", asked, account.token)).body["key"]
    body = {"message": "Hello, AI!", "model": "echo"}
    assert (await up.curl("POST", "/chat", body, key)).status == 200
    refused = await up.curl("POST", "/chat", body, key)
    check_envelope(refused, 429, "RATE_LIMITED")
    assert 0 < int(refused.headers["Retry-After"]) <= 60


async def test_the_other_service_is_hugging_face(plain: Up, provider: FakeOpenAI):
    email = f"{uuid.uuid4().hex}@example.com"
    user = {"email": email, "password": "password123"}
    await plain.curl("POST", "/auth/register", user)
    token = (await plain.curl("POST", "/auth/login", user)).body["access_token"]
    body = {"message": "Hello, AI!", "model": "meta-llama/Llama-3.3-70B-Instruct"}
    answer = await plain.curl("POST", "/chat", body, token)
    assert (answer.status, answer.body["message"]) == (200, "Hello, world!")
    sent = provider.requests[-1]
    assert sent.headers["Authorization"] == "Bearer hf_the-operators-own-token"
    assert sent.body["model"] == "meta-llama/Llama-3.3-70B-Instruct"


async def test_the_environment_file_is_read_once_its_secret_is_strong(up: Up, tmp_path: Path):
    text = "OPENAI_API_KEY=your-openai-api-key\nSECRET_KEY={}\n"
    (tmp_path / ".env").write_text(text.format("your-super-secret-key"))
    code, output = await up.khesht("check-config", folder=tmp_path)
    assert code == 2
    assert "SECRET_KEY" in output
    (tmp_path / ".env").write_text(text.format("your-super-secret-key" * 2))
    assert (await up.khesht("check-config", folder=tmp_path))[0] == 0


async def test_the_addresses_to_monitor_answer(up: Up):
    # Flower's are /chat/tasks/{task_id} and /v1/generations here.
    for path in ("/docs", "/health"):
        assert (await up.curl("GET", path)).status == 200
