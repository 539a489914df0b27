"""Errors as OpenAI's package reads them: its classes, `code`, `param`, and whether it tries again."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest

from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.running import Account, Up

ASK = [{"role": "user", "content": "Hello"}]
FIELDS = {"message", "type", "param", "code", "status", "reason", "details", "request_id"}


@pytest.fixture
async def sent() -> list[str]:
    """The paths of all that `client` has sent."""
    return []


@pytest.fixture
async def client(up: Up, account: Account, sent: list[str]) -> AsyncIterator[openai.AsyncOpenAI]:
    async def note(request: httpx2.Request) -> None:
        sent.append(request.url.path)

    http = openai.DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=account.key, http_client=http
    ) as made:
        yield made


Call = Callable[[openai.AsyncOpenAI], Any]


@pytest.mark.parametrize(
    ("call", "kind", "code", "param", "reason"),
    [
        pytest.param(
            lambda c: c.with_options(api_key="ai_nonsense").models.list(),
            *(openai.AuthenticationError, "invalid_api_key", None, "INVALID_CREDENTIALS"),
            id="key",
        ),
        pytest.param(
            lambda c: c.chat.completions.create(model="gpt-99", messages=ASK),
            *(openai.NotFoundError, "model_not_found", "model", "MODEL_NOT_FOUND"),
            id="model",
        ),
        pytest.param(
            lambda c: c.models.retrieve("gpt-99"),
            *(openai.NotFoundError, "model_not_found", "model", "MODEL_NOT_FOUND"),
            id="one model",
        ),
        pytest.param(
            lambda c: c.chat.completions.create(model="fast", messages=[]),
            *(openai.BadRequestError, None, "messages", "INVALID_FIELDS"),
            id="field",
        ),
        pytest.param(
            lambda c: c.embeddings.create(model="fast", input="Hi"),
            *(openai.NotFoundError, "unknown_url", None, "UNKNOWN_PATH"),
            id="path",
        ),
    ],
)
async def test_an_error_has_the_packages_class_code_and_param(
    client: openai.AsyncOpenAI, call: Call, kind, code, param, reason
):
    with pytest.raises(kind) as raised:
        await call(client)
    error = raised.value
    assert (error.code, error.param, error.body["reason"]) == (code, param, reason)
    assert set(error.body) == FIELDS
    assert error.body["request_id"] == error.request_id
    assert error.type == error.body["type"]


async def test_a_spent_limit_says_when_to_come_again(up: Up, account: Account, client, provider):
    one = {"name": "one", "rate_limit_per_minute": 1, "token_limit_per_minute": 1_000_000}
    made = await up.call("POST", "/api/v1/api-keys", one, account.token)
    limited = client.with_options(api_key=made.body["key"], max_retries=0)
    answer = await limited.chat.completions.with_raw_response.create(model="fast", messages=ASK)
    for kind, limit in (("requests", "1"), ("tokens", "1000000")):
        assert answer.headers[f"x-ratelimit-limit-{kind}"] == limit
        assert answer.headers[f"x-ratelimit-remaining-{kind}"].isdecimal()
        assert answer.headers[f"x-ratelimit-reset-{kind}"].removesuffix("s").isdecimal()
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert "RateLimit" in answer.headers
    with pytest.raises(openai.RateLimitError) as raised:
        await limited.chat.completions.create(model="fast", messages=ASK)
    headers = raised.value.response.headers
    assert raised.value.code == "rate_limit_exceeded"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 0 < int(headers["retry-after-ms"]) <= 60_000
    assert "x-should-retry" not in headers


async def test_a_budget_that_is_used_up_is_not_asked_for_again(
    up: Up, account: Account, client, sent: list[str], provider: FakeOpenAI
):
    poor = {"name": "poor", "total_budget_usd": 0.000001}
    made = await up.call("POST", "/api/v1/api-keys", poor, account.token)
    with pytest.raises(openai.RateLimitError) as raised:
        await client.with_options(api_key=made.body["key"]).chat.completions.create(
            model="fast", messages=ASK
        )
    assert (raised.value.code, raised.value.type) == ("insufficient_quota", "insufficient_quota")
    assert raised.value.body["reason"] == "BUDGET_EXCEEDED"
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert sent == ["/v1/chat/completions"]


async def test_a_name_that_was_used_for_another_request_is_not_asked_for_again(
    client, sent: list[str], provider: FakeOpenAI
):
    named = client.with_options(default_headers={"Idempotency-Key": "once"})
    await named.chat.completions.create(model="fast", messages=ASK)
    with pytest.raises(openai.ConflictError) as raised:
        await named.chat.completions.create(model="fast", messages=ASK, seed=1)
    assert raised.value.body["reason"] == "REQUEST_ID_REUSED"
    assert len(sent) == 2


async def test_what_passes_is_asked_for_again(client, sent: list[str], provider: FakeOpenAI):
    provider.first[:] = [Script(status=401)]  # Which chat does not ask again by itself.
    await client.chat.completions.create(model="fast", messages=ASK)
    assert len(sent) == 2


async def test_an_error_in_a_stream_has_the_shape_too(client, provider: FakeOpenAI):
    provider.script = Script(pieces=("a",), pause=0.05, end=End.CUT)
    stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
    with pytest.raises(openai.APIError) as raised:
        async for _ in stream:
            pass
    assert set(raised.value.body) == FIELDS
    assert (raised.value.code, raised.value.body["status"]) == (None, "UNAVAILABLE")


async def test_rest_keeps_its_own_shape(up: Up, account: Account):
    for path in ("/chats/x", "/v1/generations/x", "/v1/nothing", "/nothing"):
        answer = await up.call("GET", path, token=account.key)
        assert set(answer.body["error"]) == FIELDS - {"param"}
        assert answer.body["error"]["code"] == answer.status
