"""What OpenAI's package sends and reads beyond plain texts, unmodified, against the edge."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.support import eventually

ASK = [{"role": "user", "content": "Hello"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALLS = [
    {"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": f'{{"x": {n}}}'}}
    for n in (1, 2)
]
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.5, "bytes": [72], "top_logprobs": []}]}


@pytest.fixture
async def client(up: Up, account: Account) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=account.key, max_retries=0
    ) as made:
        yield made


def whole(*choices: dict[str, Any], **more: object) -> Script:
    """An answer that is not streamed, of these choices."""
    numbered = [{"index": n, "finish_reason": "stop", **c} for n, c in enumerate(choices)]
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    told = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return Script(answer=told | {"choices": numbered} | more)


async def test_parallel_tool_calls_and_their_results(client, provider: FakeOpenAI):
    provider.script = whole(
        {"message": {"role": "assistant", "content": None, "tool_calls": CALLS}},
        service_tier="flex",
    )
    reply = await client.chat.completions.create(
        model="fast", messages=ASK, tools=TOOLS, tool_choice="required", parallel_tool_calls=True
    )
    made = [call.model_dump() for call in reply.choices[0].message.tool_calls]
    assert (made, reply.service_tier) == (CALLS, "flex")
    told = [{"role": "tool", "tool_call_id": call["id"], "content": "7"} for call in CALLS]
    turns = [*ASK, {"role": "assistant", "content": None, "tool_calls": CALLS}, *told]
    await client.chat.completions.create(model="fast", messages=turns, tools=TOOLS)
    assert provider.requests[0].body["tool_choice"] == "required"
    assert provider.requests[1].body["messages"] == turns


async def test_a_tool_call_that_comes_in_pieces_is_put_together(client, provider: FakeOpenAI):
    pieces = ("", '{"x"', ": 5", "}")
    deltas = [
        {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces[1:]
    ]
    first = {**CALLS[0], "index": 0, "function": {"name": "f", "arguments": ""}}
    provider.script = Script(
        deltas=({"role": "assistant", "content": None, "tool_calls": [first]}, *deltas),
        finish_reason="tool_calls",
    )
    async with client.chat.completions.stream(model="fast", messages=ASK, tools=TOOLS) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert (call.id, call.function.arguments) == ("call_1", '{"x": 5}')


async def test_several_choices_with_logprobs(client, provider: FakeOpenAI):
    provider.script = whole(
        {"message": {"role": "assistant", "content": "a"}, "logprobs": LOGPROBS},
        {"message": {"role": "assistant", "content": "b"}},
    )
    asked = {"model": "fast", "messages": ASK, "n": 2, "logprobs": True, "top_logprobs": 1}
    reply = await client.chat.completions.create(**asked, stop=["x"], seed=1)
    assert [choice.message.content for choice in reply.choices] == ["a", "b"]
    assert reply.choices[0].logprobs.model_dump(exclude_none=True) == LOGPROBS
    assert provider.requests[0].body == {**asked, "model": "gpt-4o-mini", "stop": ["x"], "seed": 1}
    provider.script = Script(
        choices=(
            {"index": 0, "delta": {"content": "a"}, "logprobs": LOGPROBS},
            {"index": 1, "delta": {"content": "b"}},
            {"index": 1, "delta": {}, "finish_reason": "length"},
        ),
        pieces=(),
    )
    texts = {0: "", 1: ""}
    reasons = {}
    stream = await client.chat.completions.create(**asked, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
    assert (texts, reasons) == ({0: "a", 1: "b"}, {0: "stop", 1: "length"})


async def test_reasoning_comes_as_it_is(client, provider: FakeOpenAI):
    message = {"role": "assistant", "content": "b", "reasoning_content": "a"}
    provider.script = whole({"message": message})
    reply = await client.chat.completions.create(
        model="fast", messages=ASK, reasoning_effort="low", extra_body={"thinking": {"on": True}}
    )
    assert reply.choices[0].message.reasoning_content == "a"
    assert provider.requests[0].body["thinking"] == {"on": True}
    assert provider.requests[0].body["reasoning_effort"] == "low"
    provider.script = Script(deltas=({"reasoning_content": "a"}, {"content": "b"}))
    stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in stream]
    assert [getattr(delta, "reasoning_content", None) for delta in deltas[:2]] == ["a", None]


async def test_images_go_as_they_are(client, provider: FakeOpenAI):
    inline = {"url": "data:image/png;base64," + "A" * 100_000, "detail": "low"}
    turns = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": inline},
                {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}},
            ],
        }
    ]
    await client.chat.completions.create(model="fast", messages=turns)
    assert provider.requests[0].body["messages"] == turns


async def test_structured_output_is_parsed_from_a_stream(client, provider: FakeOpenAI):
    class Point(BaseModel):
        x: int

    provider.script = Script(pieces=('{"x"', ": 5}"))
    async with client.chat.completions.stream(
        model="fast", messages=ASK, response_format=Point
    ) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == Point(x=5)
    assert provider.requests[0].body["response_format"]["json_schema"]["strict"]


async def test_a_refusal_is_told(client, provider: FakeOpenAI):
    message = {"role": "assistant", "content": None, "refusal": "I won't"}
    provider.script = whole({"message": message})
    reply = await client.chat.completions.create(model="fast", messages=ASK)
    assert reply.choices[0].message.refusal == "I won't"


async def test_usage_in_a_chunk_of_text_is_shown_to_who_asked_for_it(client, provider: FakeOpenAI):
    last = (
        b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
        b'[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":'
        b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    )
    for options, shown in ((openai.omit, []), ({"include_usage": True}, [3])):
        provider.script = Script(raw=last + b"data: [DONE]\n\n", pieces=())
        stream = await client.chat.completions.create(
            model="fast", messages=ASK, stream=True, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["a"]
        assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == shown


async def test_the_packages_own_retries_are_told_when(client, provider: FakeOpenAI):
    provider.first[:] = [Script(status=429, headers={"Retry-After": "3"})]
    with pytest.raises(openai.RateLimitError) as limited:
        await client.chat.completions.create(model="fast", messages=ASK)
    assert limited.value.response.headers["Retry-After"] == "3"
    assert limited.value.body["reason"] == "PROVIDER_RATE_LIMITED"
    provider.first[:] = [Script(status=401)]  # Which chat does not ask again by itself.
    patient = client.with_options(max_retries=1)
    reply = await patient.chat.completions.create(model="fast", messages=ASK)
    assert reply.choices[0].message.content == "Hello, world!"
    assert len(provider.requests) == 3


async def test_the_packages_own_timeout_ends_the_call_at_the_provider(client, provider: FakeOpenAI):
    for stream in (False, True):
        provider.script = Script(headers_after=30)
        provider.requests.clear()
        hasty = client.with_options(timeout=0.5)
        with pytest.raises(openai.APITimeoutError):
            await hasty.chat.completions.create(model="fast", messages=ASK, stream=stream)
        assert await eventually(lambda: provider.requests[0].closed_at, within=2)


async def test_leaving_a_stream_ends_the_call_at_the_provider(client, provider: FakeOpenAI):
    provider.script = Script(pieces=("word ",) * 500, pause=0.02)
    stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
    async for _ in stream:
        break
    await stream.close()
    assert await eventually(lambda: provider.requests[0].closed_at, within=2)


@pytest.mark.parametrize("end", [End.CUT, End.EARLY, End.MALFORMED, End.ERROR])
async def test_a_failure_in_the_middle_is_raised(client, provider: FakeOpenAI, end: End):
    provider.script = Script(pieces=("a", "b"), pause=0.05, end=end)
    texts = []
    with pytest.raises(openai.APIError, match="broke off") as failed:
        async with client.chat.completions.stream(model="fast", messages=ASK) as stream:
            async for event in stream:
                if event.type == "content.delta":
                    texts.append(event.delta)
    assert "".join(texts) == "ab"
    assert failed.value.type == "server_error"
    assert (end is End.ERROR) == ("out of memory" in str(failed.value.body))


async def test_a_spent_limit_is_the_packages_own_class(up: Up, account: Account, provider):
    one = {"name": "one a minute", "rate_limit_per_minute": 1}
    made = await up.call("POST", "/api/v1/api-keys", one, account.token)
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=made.body["key"], max_retries=0
    ) as client:
        await client.chat.completions.create(model="fast", messages=ASK)
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="fast", messages=ASK)
    assert 0 < int(limited.value.response.headers["Retry-After"]) <= 60


def test_the_package_without_asyncio_works_too(up: Up, account: Account, provider: FakeOpenAI):
    with openai.OpenAI(base_url=f"{up.url}/v1", api_key=account.key) as client:
        stream = client.chat.completions.create(model="echo", messages=ASK, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "Hello"


async def test_no_field_of_a_request_says_where_it_goes(client, provider: FakeOpenAI):
    async with FakeOpenAI().serving() as elsewhere:
        fields = ("base_url", "api_base", "url", "endpoint", "proxy", "host", "provider", "user")
        body: dict[str, object] = dict.fromkeys(fields, elsewhere.url)
        await client.chat.completions.create(
            model="fast",
            messages=ASK,
            extra_body=body,
            extra_headers={"X-Base-Url": elsewhere.url, "X-Forwarded-Host": elsewhere.url},
        )
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model=elsewhere.url, messages=ASK)
        assert not elsewhere.requests
    assert provider.requests[0].body.items() >= body.items()


@pytest.mark.parametrize("choices", ["", '"choices":null,', '"choices":[],', '"choices": [ ],'])
async def test_a_chunk_of_usage_has_a_list_of_choices(client, provider: FakeOpenAI, choices: str):
    told = '"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
    chunk = f'data: {{"id":"c","object":"chat.completion.chunk","created":1,"model":"m",{choices}{told}}}\n\n'
    provider.script = Script(raw=TEXT + chunk.encode() + b"data: [DONE]\n\n", pieces=())
    stream = await client.chat.completions.create(
        model="fast", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [each async for each in stream]
    assert [len(each.choices) for each in chunks] == [1, 0]
    assert chunks[-1].usage.total_tokens == 3


async def test_a_stream_begins_with_its_first_event(up: Up, account: Account, provider: FakeOpenAI):
    body = {"model": "fast", "messages": ASK, "stream": True}
    answer = await up.call("POST", "/v1/chat/completions", body, account.key)
    assert answer.text.startswith("data: {")
    assert answer.headers["X-Generation-Id"]


TEXT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
)
