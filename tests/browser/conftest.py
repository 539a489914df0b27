"""A mesh, and a browser that looks at it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.browser import chromium
from tests.browser.chromium import Page
from tests.clients import installed
from tests.mesh.running import Account, Up, new_account, started


@pytest.fixture(scope="session")
async def elsewhere() -> AsyncIterator[str]:
    """Another origin than the mesh's, which serves OpenAI's package as it is published."""
    app = web.Application()
    app.router.add_get("/", _page)
    packages = await asyncio.to_thread(installed.node)
    app.router.add_static("/packages", packages / "node_modules")
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=_PAGE, content_type="text/html")


_PAGE = """<!doctype html><title>elsewhere</title><link rel="icon" href="data:,"><script type="module">
import OpenAI from "/packages/openai/index.mjs"; window.OpenAI = OpenAI</script>"""


@pytest.fixture(scope="session")
async def up(tmp_path_factory: pytest.TempPathFactory, elsewhere: str) -> AsyncIterator[Up]:
    home = tmp_path_factory.mktemp("mesh") / "home"
    async with started(home, CORS_ORIGINS=elsewhere) as running:
        yield running


@pytest.fixture
async def account(up: Up) -> Account:
    return await new_account(up)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "no chromium: make test-browser says how to get one"
    async with chromium.opened(program, tmp_path / "profile") as page:
        yield page
