"""Every example of the fourth document: a streamed text for the caller's own key, and its limits."""

import uuid

import httpx
import pytest

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Up
from tests.mesh.test_errors import check_envelope

CHAT = {
    "developer_message": "Be brief.",
    "user_message": "And now?",
    "chat_history": [
        {"role": "user", "content": "Hello"},
        {"role": "ai", "content": "Hi there"},
    ],
    "model": "gpt-4.1-mini",
    "api_key": "sk-your-openai-api-key",
}


async def test_the_chat_endpoint_streams_text_for_the_callers_own_key(
    plain: Up, provider: FakeOpenAI
):
    provider.script = Script(pieces=("As", " ever", "."), pause=0.2)
    parts = []
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{plain.url}/api/chat", json=CHAT) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        parts = [part async for part in answer.aiter_text()]
    assert "".join(parts) == "As ever."
    assert len(parts) > 1  # It came as it was made.
    (request,) = provider.requests
    assert request.headers["Authorization"] == "Bearer sk-your-openai-api-key"
    assert request.body["model"] == "gpt-4.1-mini"
    # OpenAI calls the developer's message the system's for this model.
    assert [(turn["role"], turn["content"]) for turn in request.body["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi there"),
        ("user", "And now?"),
    ]


async def test_the_model_is_optional(plain: Up, provider: FakeOpenAI):
    body = {name: value for name, value in CHAT.items() if name != "model"}
    assert (await plain.curl("POST", "/api/chat", body)).text == "Hello, world!"


@pytest.mark.parametrize("model", ["gpt-4.1-mini", "gpt-4o-mini", "gpt-3.5-turbo"])
async def test_a_model_that_is_allowed(plain: Up, provider: FakeOpenAI, model: str):
    answer = await plain.curl("POST", "/api/chat", CHAT | {"model": model})
    assert (answer.status, answer.text) == (200, "Hello, world!")
    assert provider.requests[-1].body["model"] == model


async def test_a_model_that_is_not(plain: Up):
    answer = await plain.curl("POST", "/api/chat", CHAT | {"model": "gpt-99"})
    check_envelope(answer, 404, "MODEL_NOT_FOUND")


async def test_the_health_check(plain: Up):
    answer = await plain.curl("GET", "/api/health")
    assert (answer.status, answer.body) == (200, {"status": "ok"})


async def test_the_message_length_limit(plain: Up, provider: FakeOpenAI):
    longest = "x" * 10_000
    answer = await plain.call("POST", "/api/chat", CHAT | {"user_message": longest})
    assert (answer.status, answer.text) == (200, "Hello, world!")
    # The document answers 422 to what is not valid; ours, 400 and which field it is.
    for more in ({"user_message": longest + "x"}, {"developer_message": longest + "x"}):
        answer = await plain.call("POST", "/api/chat", CHAT | more)
        check_envelope(answer, 400, "MESSAGE_TOO_LONG")


async def test_the_history_limit(plain: Up, provider: FakeOpenAI):
    history = [{"role": ("user", "ai")[turn % 2], "content": str(turn)} for turn in range(50)]
    answer = await plain.call("POST", "/api/chat", CHAT | {"chat_history": history})
    assert answer.status == 200
    longer = [*history, {"role": "user", "content": "x"}]
    answer = await plain.call("POST", "/api/chat", CHAT | {"chat_history": longer})
    error = check_envelope(answer, 400, "MESSAGE_TOO_LONG")
    assert error["message"] == "chat_history: 51 turns; 50 are allowed"


async def test_input_is_sanitized(plain: Up, provider: FakeOpenAI):
    body = CHAT | {"user_message": "a\x00b\x07c\x1b[31md\n\te\x7f"}
    assert (await plain.curl("POST", "/api/chat", body)).status == 200
    assert provider.requests[-1].body["messages"][-1]["content"] == "abc[31md\n\te"


async def test_an_api_key_must_start_with_sk(plain: Up, provider: FakeOpenAI):
    answer = await plain.curl("POST", "/api/chat", CHAT | {"api_key": "your-openai-api-key"})
    error = check_envelope(answer, 400, "INVALID_FIELDS")
    assert "API key must start with sk-" in str(error["message"])
    assert not provider.requests


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_message": None}, "user_message"),
        ({"chat_history": [{"role": "robot", "content": "x"}]}, "chat_history[0].role"),
        ({"chat_history": [{"role": "ai"}]}, "chat_history[0].content"),
    ],
)
async def test_a_validation_error_names_the_field(plain: Up, change, field: str):
    body = {name: value for name, value in (CHAT | change).items() if value is not None}
    error = check_envelope(await plain.curl("POST", "/api/chat", body), 400, "INVALID_FIELDS")
    assert field in str(error["message"])


async def test_a_key_that_openai_refuses_is_the_callers_mistake(plain: Up, provider: FakeOpenAI):
    provider.script = Script(status=401, body='{"error": {"message": "sk-your-openai-api-key"}}')
    answer = await plain.curl("POST", "/api/chat", CHAT)
    check_envelope(answer, 401, "PROVIDER_KEY_REFUSED")
    assert "sk-your-openai-api-key" not in answer.text


async def test_an_error_of_openai_is_told_without_its_text(plain: Up, provider: FakeOpenAI):
    provider.script = Script(status=500, body="inner text")
    answer = await plain.curl("POST", "/api/chat", CHAT)
    check_envelope(answer, 503, "PROVIDER_UNAVAILABLE")
    assert "inner text" not in answer.text


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_is_there(plain: Up, path: str):
    assert (await plain.curl("GET", path)).status == 200


async def test_any_origin_may_call_unless_that_is_changed(plain: Up, up: Up):
    origin = f"https://{uuid.uuid4().hex}.example"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await plain.call("OPTIONS", "/api/chat", **asked)
    assert answer.headers["Access-Control-Allow-Origin"] in (origin, "*")
    restricted = await up.call("OPTIONS", "/api/chat", **asked)
    assert "Access-Control-Allow-Origin" not in restricted.headers
