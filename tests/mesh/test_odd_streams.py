"""What providers really send, through the whole mesh: the text by every way, and errors by class."""

import json

import openai
import pytest
from openai._streaming import SSEDecoder

from tests.fake_openai import FakeOpenAI, Script, cut
from tests.mesh.running import Account, Up
from tests.odd_streams import END, ODD, USAGE, all_at_once, chunk, event, sizes
from tests.support import eventually

ASK = [{"role": "user", "content": "Hello"}]


async def events(up: Up, path: str, body: object, key: str) -> list[str]:
    """The data of the events of a stream, as a client of OpenAI's cuts them."""
    headers = {"Authorization": f"Bearer {key}"}
    async with up.http.post(up.url + path, json=body, headers=headers) as got:
        assert got.status == 200
        text = await got.text()
    return [each.data for each in SSEDecoder().iter_bytes(iter([text.encode()]))]


def text_of(data: list[str]) -> str:
    """The text of relayed events, of those that are chunks."""
    text = ""
    for each in data:
        for choice in json.loads(each).get("choices") or [] if each != "[DONE]" else []:
            content = (choice.get("delta") or {}).get("content") or ""
            parts = content if isinstance(content, list) else [content]
            text += "".join(part["text"] if isinstance(part, dict) else part for part in parts)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@pytest.mark.parametrize("seed", range(6))
async def test_the_text_is_the_same_by_every_way_however_it_is_cut(
    up: Up, account: Account, provider: FakeOpenAI, seed: int
):
    stream, text = all_at_once()
    provider.script = Script(exact=cut(stream, *sizes(seed), pause=0.001))
    asked = {"message": "Hi", "model": "fast"}
    whole = await up.call("POST", "/chat", asked, account.key)
    assert (whole.status, whole.body["message"]) == (200, text)
    assert whole.body["usage"]["total_tokens"] == USAGE["total_tokens"]
    told = [json.loads(each) for each in await events(up, "/chat/stream", asked, account.key)]
    assert "".join(each.get("token", "") for each in told) == text
    assert (told[-1]["done"], told[-1]["full_text"]) == (True, text)
    body = {"model": "fast", "messages": ASK}
    relayed = await events(up, "/v1/chat/completions", body | {"stream": True}, account.key)
    assert (text_of(relayed), relayed[-1]) == (text, "[DONE]")
    made = await up.call("POST", "/v1/chat/completions", body, account.key)
    assert made.body["choices"][0]["message"]["content"] == text
    taken = await up.call("POST", "/chat/background", asked, account.key)

    async def over() -> str | None:
        task = await up.call("GET", f"/chat/tasks/{taken.body['task_id']}", token=account.key)
        return task.body["result"]["message"] if task.body["status"] == "completed" else None

    assert await eventually(over, within=20) == text


@pytest.mark.parametrize(
    "name",
    [name for name in ODD if name not in ("no delta", "parts", "half an emoji")],
)
async def test_openais_package_reads_on(up: Up, account: Account, provider: FakeOpenAI, name: str):
    odd, text = ODD[name]
    provider.script = Script(exact=(chunk("Hello "), odd, chunk("!"), END))
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=account.key, max_retries=0
    ) as client:
        stream = await client.chat.completions.create(model="fast", messages=ASK, stream=True)
        got = ""
        async for each in stream:
            for choice in each.choices or []:  # Null where it came so.
                got += choice.delta.content or ""
    assert got.encode("utf-16-le", "surrogatepass").decode("utf-16-le") == f"Hello {text}!"


@pytest.mark.parametrize(
    ("code", "raised", "status"),
    [
        ("context_length_exceeded", openai.BadRequestError, 400),
        (400, openai.BadRequestError, 400),
        ("model_not_found", openai.NotFoundError, 404),
        ("rate_limit_exceeded", openai.RateLimitError, 429),
        (429, openai.RateLimitError, 429),
        ("invalid_api_key", openai.InternalServerError, 503),
        (500, openai.InternalServerError, 503),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("own", [False, True])
async def test_an_error_in_an_answer_is_of_the_class_of_its_code(
    up: Up,
    account: Account,
    provider: FakeOpenAI,
    code: object,
    raised: type[openai.APIStatusError],
    status: int,
    stream: bool,
    own: bool,
):
    provider.script = Script(
        exact=(event({"error": {"message": "no", "code": code, "param": "n"}}),)
    )
    headers = {"X-Provider-Key": "sk-the-callers-own"} if own else {}
    if own and code == "invalid_api_key":
        raised, status = openai.AuthenticationError, 401
    async with openai.AsyncOpenAI(
        base_url=f"{up.url}/v1", api_key=account.key, max_retries=0, default_headers=headers
    ) as client:
        with pytest.raises(raised) as failed:
            await client.chat.completions.create(model="fast", messages=ASK, stream=stream)
    assert failed.value.status_code == status
    details = failed.value.body["details"][0]["metadata"]
    if status != 503 or code == 500:
        assert (details["provider_code"], details["provider_param"]) == (str(code), "n")
        assert failed.value.body["message"].endswith("no")
