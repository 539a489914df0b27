"""A provider that wants its key in a header of its own and a version in each call, as Azure's does."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from mesh import errors
from tests.integration.chat.routing import PROMPT, account, asked, relay, routing, text_of

PATH = "/openai/deployments/gpt/chat/completions"
CHUNK = (
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\n'
)


@pytest.fixture
async def azure() -> AsyncIterator[tuple[str, list[web.Request]]]:
    """Where it is, and what it was asked. It takes nothing but its own way."""
    asked_of: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked_of.append(request)
        if request.query.get("api-version") != "2024-10-21" or "Authorization" in request.headers:
            return web.Response(status=404, text="Resource not found")
        if request.headers.get("api-key") != "the-key":
            return web.json_response({"error": {"message": "Access denied"}}, status=401)
        return web.Response(body=CHUNK + b"data: [DONE]\n\n", content_type="text/event-stream")

    app = web.Application()
    app.router.add_post(PATH, answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/openai/deployments/gpt", asked_of
    await runner.cleanup()


async def test_the_key_and_the_version_go_where_they_are_wanted(azure):
    url, asked_of = azure
    theirs = replace(
        account("azure", url, key="the-key"),
        key_header="api-key",
        query=(("api-version", "2024-10-21"),),
    )
    async with routing(theirs) as router:
        assert text_of(await asked(router, "azure")) == "Hi"
        assert text_of(await asked(router, "azure", relay(stream=True))) == "Hi"
        with pytest.raises(errors.MeshError) as refused:
            await asked(router, "azure", replace(PROMPT, key="a-callers"))
        assert refused.value.reason == "PROVIDER_KEY_REFUSED"
    assert [each.headers["api-key"] for each in asked_of] == ["the-key", "the-key", "a-callers"]
    async with routing(replace(theirs, key_header="")) as router:
        with pytest.raises(errors.MeshError):
            await asked(router, "azure")
