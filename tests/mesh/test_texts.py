"""Bare text, summaries and translations."""

import pytest

from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.mesh.test_errors import check_envelope

CHAT = {
    "developer_message": "Be kind.",
    "user_message": "And now?",
    "chat_history": [{"role": "user", "content": "Hi"}, {"role": "ai", "content": "Hello"}],
    "model": "gpt-4.1-mini",
}
OWN_KEY = "sk-canary-of-an-anonymous-caller"


async def test_text_is_streamed_bare(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("Now", " what", "\n?"), pause=0.02)
    answer = await up.call("POST", "/api/chat", CHAT, account.key)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text == "Now what\n?"
    assert [(t["role"], t["content"]) for t in provider.requests[0].body["messages"]] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "And now?"),
    ]


async def test_a_callers_own_key_is_enough_and_reaches_the_provider_alone(
    up: Up, provider: FakeOpenAI
):
    answer = await up.call("POST", "/api/chat", {**CHAT, "api_key": OWN_KEY})
    assert (answer.status, answer.text) == (200, "Hello, world!")
    assert provider.requests[0].headers["Authorization"] == f"Bearer {OWN_KEY}"
    assert OWN_KEY not in str(provider.requests[0].body)
    logs = "".join(path.read_text() for path in (up.home / "logs").glob("*.log"))
    assert OWN_KEY not in logs


async def test_without_any_credential_it_is_refused(up: Up, provider: FakeOpenAI):
    check_envelope(await up.call("POST", "/api/chat", CHAT), 401, "MISSING_CREDENTIALS")
    assert not provider.requests


async def test_a_key_has_to_fit_the_provider(up: Up, account: Account, provider: FakeOpenAI):
    for path, body in (
        ("/api/chat", CHAT),
        ("/chat", {"message": "Hi", "model": "fast"}),
        ("/chat/stream", {"message": "Hi", "model": "fast"}),
    ):
        answer = await up.call("POST", path, {**body, "api_key": "gsk_x"}, account.key)
        error = check_envelope(answer, 400, "INVALID_FIELDS")
        assert "API key must start with sk-" in str(error["message"])
    assert not provider.requests


async def test_text_that_breaks_off_says_so(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b"), pause=0.05, end=End.CUT)
    answer = await up.call("POST", "/api/chat", CHAT, account.key)
    assert answer.text == "ab\n[PROVIDER_BROKE_OFF: openai broke off before the end]"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_message": "x" * 10_001}, "user_message"),
        ({"chat_history": [{"role": "assistant", "content": "x"}]}, "chat_history[0].role"),
        ({"user_message": ""}, "user_message"),
    ],
)
async def test_wrong_fields_are_named(up: Up, account: Account, change, field):
    answer = await up.call("POST", "/api/chat", {**CHAT, **change}, account.key)
    assert answer.status == 400
    assert field in answer.body["error"]["message"]


@pytest.mark.parametrize("style", ["concise", "detailed", "bullet_points", None])
async def test_a_text_is_summed_up(up: Up, account: Account, provider: FakeOpenAI, style):
    provider.script = Script(pieces=("In short",))
    asked = {"text": "A long text.", "max_length": 77, "model": "fast"}
    body = asked | ({"style": style} if style else {})
    answer = await up.call("POST", "/api/v1/summarize", body, account.key)
    assert answer.body["summary"] == "In short"
    assert answer.body["usage"]["total_tokens"] == 175
    system, user = provider.requests[0].body["messages"]
    assert (system["role"], user) == ("system", {"role": "user", "content": "A long text."})
    assert "77 words" in system["content"]
    assert ('"- "' in system["content"]) is (style == "bullet_points")


@pytest.mark.parametrize("source", ["auto", "French", None])
async def test_a_text_is_translated(up: Up, account: Account, provider: FakeOpenAI, source):
    provider.script = Script(pieces=("Hola",))
    asked = {"text": "Bonjour", "target_language": "Spanish", "model": "fast"}
    body = asked | ({"source_language": source} if source else {})
    answer = await up.call("POST", "/api/v1/translate", body, account.key)
    assert answer.body["translation"] == "Hola"
    assert answer.body["source_language"] == (source or "auto")
    assert answer.body["target_language"] == "Spanish"
    assert ("from French" in provider.requests[0].body["messages"][0]["content"]) is (
        source == "French"
    )


async def test_a_text_that_is_too_long_is_refused_clearly(up: Up, account: Account):
    for path, more in (("summarize", {}), ("translate", {"target_language": "Latin"})):
        body = {"text": "x" * 100_001, "model": "echo", **more}
        answer = await up.call("POST", f"/api/v1/{path}", body, account.key)
        error = check_envelope(answer, 400, "MESSAGE_TOO_LONG")
        assert error["message"] == "text: 100001 characters; 100000 are allowed"
