"""OpenAI's package for browsers, unmodified, in a page of another origin."""

import json

import pytest

from tests.browser.chromium import Page
from tests.mesh.running import Account, Up


@pytest.fixture
async def sdk(up: Up, account: Account, page: Page, elsewhere: str) -> Page:
    """A page elsewhere, in which `client` speaks to the mesh."""
    await page.ask("Page.navigate", url=f"{elsewhere}/")
    options = {"baseURL": f"{up.url}/v1", "apiKey": account.key, "maxRetries": 0}
    made = f"new OpenAI({{...{json.dumps(options)}, dangerouslyAllowBrowser: true}})"
    await page.done(
        "new Promise(r => { const look = () => window.OpenAI ? r() : setTimeout(look, 20); look() })"
    )
    await page.value(f"window.client = {made}; 1")
    return page


ASK = "{model: 'echo', messages: [{role: 'user', content: 'one two three'}]"


async def test_a_reply_and_a_stream_are_read(sdk: Page):
    whole = f"client.chat.completions.create({ASK}}}).then(r => r.choices[0].message.content)"
    assert await sdk.done(whole) == "one two three"
    streamed = f"""(async () => {{
        let text = "";
        for await (const chunk of await client.chat.completions.create({ASK}, stream: true}}))
            text += chunk.choices[0]?.delta?.content ?? "";
        return text;
    }})()"""
    assert await sdk.done(streamed) == "one two three"
    assert not sdk.complaints, sdk.complaints


async def test_headers_of_the_packages_options_are_let_in(sdk: Page):
    asked = f"""client.withOptions({{organization: "o", project: "p", timeout: 5000, maxRetries: 1}})
        .chat.completions.create({ASK}}}, {{headers: {{"X-Mine": "1", "Idempotency-Key": "k"}}}})
        .then(r => r.choices.length)"""
    assert await sdk.done(asked) == 1


async def test_an_error_has_its_class_and_code_and_can_be_traced(sdk: Page):
    caught = """client.chat.completions.create({model: "gpt-99", messages: [{role: "user", content: "x"}]})
        .catch(e => [e instanceof OpenAI.NotFoundError, e.code, e.param, e.requestID == e.error.request_id])"""
    assert await sdk.done(caught) == [True, "model_not_found", "model", True]


async def test_a_page_may_send_the_browsers_credentials(sdk: Page, up: Up):
    for path in ("/api/health", "/openapi.json", "/v1/models"):
        asked = f'fetch("{up.url}{path}", {{credentials: "include", headers: {{"X-Mine": "1"}}}})'
        assert await sdk.done(f"{asked}.then(r => r.status)") in (200, 401)


async def test_limits_and_ids_are_there_to_be_read(sdk: Page):
    names = ["x-request-id", "x-generation-id", "ratelimit", "x-ratelimit-remaining-requests"]
    read = f"""client.chat.completions.create({ASK}}}).asResponse()
        .then(r => {json.dumps(names)}.filter(name => !r.headers.get(name)))"""
    assert await sdk.done(read) == []


async def test_another_origin_than_those_listed_is_kept_out(page: Page, up: Up, account: Account):
    await page.ask("Page.navigate", url="data:text/html,<title>x</title>")
    asked = f'fetch("{up.url}/v1/models", {{headers: {{"X-API-Key": "{account.key}"}}}})'
    assert await page.done(f'{asked}.then(() => "in", () => "out")') == "out"
