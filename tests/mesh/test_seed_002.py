"""Every example of the third document: keys, a chat, a stream, summaries, translations, usage, settings."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import JSON, Account, Up
from tests.mesh.test_errors import check_envelope
from tests.support import eventually

KEY = {"name": "My App Key", "rate_limit_per_minute": 20}
CHAT = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is Python?"},
    ],
    "model": "gpt-3.5-turbo",
    "max_tokens": 500,
}
STREAM = {
    "messages": [{"role": "user", "content": "Write a short poem about coding"}],
    "model": "gpt-3.5-turbo",
}
SUMMARIZE = {
    "text": "Your long text to summarize goes here...",
    "max_length": 100,
    "style": "concise",
}
TRANSLATE = {
    "text": "Hello, how are you?",
    "source_language": "auto",
    "target_language": "Spanish",
}
ENVIRONMENT = """OPENAI_API_KEY=sk-x
DB_USER=ai_service
DB_PASSWORD=ai_service_pass
DB_NAME=ai_service_db
DB_HOST=localhost
DB_PORT=5436
RATE_LIMIT_PER_MINUTE=10
APP_ENV=development
DEBUG=false
LOG_LEVEL=INFO
"""


async def test_an_api_key_is_created_and_shown_once(up: Up, account: Account):
    # Whoever may make keys has an account here.
    check_envelope(await up.curl("POST", "/api/v1/api-keys", KEY), 401, "MISSING_CREDENTIALS")
    made = (await up.curl("POST", "/api/v1/api-keys", KEY, account.token)).body
    assert made["key"].startswith("ai_")
    assert (made["key_prefix"], len(made["key_prefix"])) == (made["key"][:8], len("ai_xxxxx"))
    assert datetime.fromisoformat(made["created_at"])
    assert {name: made[name] for name in (*KEY, "is_active", "last_used_at")} == {
        **KEY,
        "is_active": True,
        "last_used_at": None,
    }
    shown = await up.curl("GET", f"/api/v1/api-keys/{made['id']}", token=account.token)
    assert (shown.status, "key" in shown.body) == (200, False)
    assert made["key"] not in shown.text


async def test_api_keys_are_listed_updated_and_deleted(up: Up, account: Account):
    made = (await up.curl("POST", "/api/v1/api-keys", KEY, account.token)).body
    path = f"/api/v1/api-keys/{made['id']}"
    listed = (await up.curl("GET", "/api/v1/api-keys", token=account.token)).body["api_keys"]
    assert made["id"] in [each["id"] for each in listed]
    changed = await up.curl("PATCH", path, {"rate_limit_per_minute": 5}, account.token)
    assert (changed.body["name"], changed.body["rate_limit_per_minute"]) == ("My App Key", 5)
    assert (await up.curl("DELETE", path, token=account.token)).status == 200
    # What used it is kept, so the key is too, and says that it is not good any more.
    assert (await up.curl("GET", path, token=account.token)).body["is_active"] is False
    check_envelope(await up.curl("GET", "/chats", token=made["key"]), 401, "INVALID_CREDENTIALS")


async def test_chat(up: Up, account: Account, provider: FakeOpenAI):
    answer = await up.curl("POST", "/api/v1/chat", CHAT, account.key)
    assert (answer.status, answer.body["message"]) == (200, "Hello, world!")
    # Ours asks for a stream and its usage always, whatever its caller asked for.
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    assert provider.requests[-1].body == CHAT | streamed


async def test_chat_streaming(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("Code", " flows", " like", " water"), pause=0.1)
    answer = await up.curl("POST", "/api/v1/chat/stream", STREAM, account.key)
    assert answer.headers["Content-Type"] == "text/event-stream"
    lines = [line for line in answer.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    events = [json.loads(line[6:]) for line in lines]
    tokens = [event["token"] for event in events[:-1]]
    assert tokens == ["Code", " flows", " like", " water"]
    assert (events[-1]["done"], events[-1]["full_text"]) == (True, "Code flows like water")
    # Ours says besides how it ended, what it took, and the place of each event.
    assert events[-1]["finish_reason"] == "stop"
    assert events[-1]["usage"]["total_tokens"] == 175
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert {event["generation_id"] for event in events} == {answer.headers["X-Generation-Id"]}


@pytest.mark.parametrize("style", ["concise", "detailed", "bullet_points"])
async def test_summarize(up: Up, account: Account, provider: FakeOpenAI, style: str):
    body = SUMMARIZE | {"style": style}
    answer = await up.curl("POST", "/api/v1/summarize", body, account.key)
    assert answer.body["summary"] == "Hello, world!"
    assert set(answer.body) == {"summary", "model", "usage", "generation_id"}
    instruction, text = provider.requests[-1].body["messages"]
    assert "100" in instruction["content"]
    assert text["content"] == SUMMARIZE["text"]


async def test_styles_are_no_others(up: Up, account: Account):
    answer = await up.curl("POST", "/api/v1/summarize", SUMMARIZE | {"style": "long"}, account.key)
    assert "style" in str(check_envelope(answer, 400, "INVALID_FIELDS")["message"])


async def test_translate(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("Hola, ¿cómo estás?",))
    answer = await up.curl("POST", "/api/v1/translate", TRANSLATE, account.key)
    assert answer.body["translation"] == "Hola, ¿cómo estás?"
    assert (answer.body["source_language"], answer.body["target_language"]) == ("auto", "Spanish")
    instruction, text = provider.requests[-1].body["messages"]
    assert "Spanish" in instruction["content"]
    assert text["content"] == TRANSLATE["text"]


async def test_usage_records_and_summary(up: Up, account: Account, provider: FakeOpenAI):
    await up.curl("POST", "/api/v1/chat", CHAT, account.key)
    path = f"/api/v1/usage/{account.key_id}"

    async def counted() -> JSON | None:
        answer = await up.curl("GET", f"{path}/summary?days=30", token=account.token)
        assert answer.status == 200
        return answer.body if answer.body["total_requests"] else None

    summary = await eventually(counted)
    counts = ("total_requests", "total_tokens", "total_prompt_tokens", "total_completion_tokens")
    assert [summary[name] for name in counts] == [1, 175, 25, 150]
    begin, end = (datetime.fromisoformat(summary[f"period_{edge}"]) for edge in ("start", "end"))
    assert (end - begin).days == 30
    assert summary["total_cost_usd"] == pytest.approx(0.0002375)  # Not in the document.
    (record,) = (await up.curl("GET", path, token=account.token)).body["records"]
    assert (record["model"], record["total_tokens"]) == ("gpt-3.5-turbo", 175)
    assert record["latency_ms"] > 0


async def test_the_addresses_that_are_open_answer(up: Up):
    # The documentation is there whatever DEBUG says.
    for path in ("/docs", "/health"):
        assert (await up.curl("GET", path)).status == 200


async def test_its_environment_variables_are_ours(up: Up, tmp_path: Path):
    (tmp_path / ".env").write_text(ENVIRONMENT)
    assert await up.khesht("check-config", folder=tmp_path) == (0, "the settings are good\n")
    for variable in ("DB_PORT", "RATE_LIMIT_PER_MINUTE", "APP_ENV", "DEBUG", "LOG_LEVEL"):
        (tmp_path / ".env").write_text(f"{ENVIRONMENT}\n{variable}=nonsense\n")
        code, output = await up.khesht("check-config", folder=tmp_path)
        assert code == 2, variable
        assert variable in output
