"""OpenAI's own package, unmodified, against the edge."""

import json
from collections.abc import AsyncIterator

import openai
import pytest
from pydantic import BaseModel

from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.running import Account, Up, new_account
from tests.support import eventually

ASK = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def client(up: Up, account: Account) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=account.key, max_retries=0
    ) as made:
        yield made


async def test_a_reply_is_whole(client, provider: FakeOpenAI):
    reply = await client.chat.completions.create(model="fast", messages=ASK, seed=7, user="me")
    assert reply.choices[0].message.content == "Hello, world!"
    assert reply.usage.total_tokens == 175
    assert provider.requests[0].body == {
        "model": "gpt-4o-mini",
        "messages": ASK,
        "seed": 7,
        "user": "me",
    }


async def test_a_stream_is_relayed_without_usage_unless_asked(client, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b", "c"), pause=0.05)
    for options, usages in ((openai.omit, 0), ({"include_usage": True}, 1)):
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=ASK, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        texts = [c.choices[0].delta.content for c in chunks if c.choices]
        assert [text for text in texts if text] == ["a", "b", "c"]
        assert len([c for c in chunks if c.usage]) == usages
        assert provider.requests[-1].body["stream_options"] == {"include_usage": True}


async def test_tools_go_and_come_untouched(client, provider: FakeOpenAI):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    call = {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "f", "arguments": '{"x": 1}'},
    }
    provider.script = Script(deltas=({"tool_calls": [call]},), finish_reason="tool_calls")
    stream = await client.chat.completions.create(
        model="fast", messages=ASK, tools=tools, stream=True
    )
    chunks = [chunk async for chunk in stream]
    (got,) = [c for chunk in chunks for c in chunk.choices[0].delta.tool_calls or []]
    assert (got.function.name, got.function.arguments) == ("f", '{"x": 1}')
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert provider.requests[0].body["tools"] == tools


async def test_structured_output_is_parsed(client, provider: FakeOpenAI):
    class Point(BaseModel):
        x: int

    provider.script = Script(pieces=('{"x": 5}',))
    reply = await client.chat.completions.parse(model="fast", messages=ASK, response_format=Point)
    assert reply.choices[0].message.parsed == Point(x=5)
    assert provider.requests[0].body["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (Script(status=400, body='{"error": {"message": "no"}}'), openai.BadRequestError, 400),
        (Script(status=401), openai.InternalServerError, 503),
        (Script(status=429), openai.RateLimitError, 429),
        (Script(status=500), openai.InternalServerError, 503),
    ],
)
async def test_errors_are_the_clients_own_classes(client, provider, script, error, status):
    provider.script = script
    for stream in (False, True):
        with pytest.raises(error) as raised:
            await client.chat.completions.create(model="fast", messages=ASK, stream=stream)
        assert raised.value.status_code == status


async def test_wrong_requests_are_the_clients_own_classes(client, up: Up, provider):
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-99", messages=ASK)
    with pytest.raises(openai.BadRequestError, match="messages"):
        await client.chat.completions.create(model="fast", messages=[])
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="ai_nonsense").chat.completions.create(
            model="fast", messages=ASK
        )
    with pytest.raises(openai.BadRequestError):
        await client.post("/chat/completions", cast_to=object, body={"model": "fast"})


async def test_a_stream_that_breaks_raises_and_never_ends_clean(client, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b"), pause=0.05, end=End.CUT)
    stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
    texts = []
    with pytest.raises(openai.APIError, match="broke off"):
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)
    assert texts == ["a", "b"]


async def test_own_keys_reach_the_provider_and_nothing_else(
    client, up: Up, account: Account, provider: FakeOpenAI
):
    own = {"X-Provider-Key": "sk-a-canary-of-the-caller"}
    await client.with_options(default_headers=own).chat.completions.create(
        model="fast", messages=ASK
    )
    assert provider.requests[0].headers["Authorization"] == "Bearer sk-a-canary-of-the-caller"
    provider.script = Script(status=401)
    with pytest.raises(openai.AuthenticationError, match="refused this key"):
        await client.with_options(default_headers=own).chat.completions.create(
            model="fast", messages=ASK
        )
    logs = "".join(path.read_text() for path in (up.home / "logs").glob("*.log"))
    assert "a-canary-of-the-caller" not in logs


async def test_echo_speaks_the_format_too(client):
    reply = await client.chat.completions.create(model="echo", messages=ASK)
    assert (reply.choices[0].message.content, reply.usage.total_tokens) == ("Hello", 2)
    stream = await client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "one two"}], stream=True
    )
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "one two"


async def test_what_was_relayed_is_in_the_usage_records(
    client, up: Up, account: Account, provider: FakeOpenAI
):
    await client.chat.completions.create(model="fast", messages=ASK)
    stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
    async for _ in stream:
        pass

    async def records() -> list[dict[str, object]]:
        got = await up.call("GET", f"/api/v1/usage/{account.key_id}", token=account.token)
        return got.body["records"] if len(got.body["records"]) == 2 else []

    for record in await eventually(records):
        assert (record["total_tokens"], record["basis"]) == (175, "provider")


async def test_models_are_listed_and_found(client):
    assert "gpt-4o-mini" in [model.id async for model in client.models.list()]
    assert (await client.models.retrieve("fast")).id == "gpt-4o-mini"


async def test_a_model_with_a_slash_in_its_id_is_found(plain: Up):
    account = await new_account(plain)
    model = "meta-llama/Llama-3.3-70B-Instruct"
    async with openai.AsyncOpenAI(base_url=f"{plain.url}/v1", api_key=account.key) as client:
        assert (await client.models.retrieve(model)).id == model


async def test_the_first_bytes_say_what_they_are(up: Up, account: Account, provider: FakeOpenAI):
    for stream, kind in ((True, "text/event-stream"), (False, "application/json")):
        body = {"model": "fast", "messages": ASK, "stream": stream}
        answer = await up.call("POST", "/v1/chat/completions", body, account.key)
        assert answer.headers["Content-Type"] == kind
        assert "X-Generation-Id" in answer.headers
        if stream:
            assert answer.text.endswith("data: [DONE]\n\n")
        else:
            assert json.loads(answer.text)["object"] == "chat.completion"
