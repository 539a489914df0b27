"""A mesh, and a browser that looks at it."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.browser import chromium
from tests.browser.chromium import Page
from tests.mesh.running import Account, Up, new_account, started


@pytest.fixture(scope="session")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    async with started(tmp_path_factory.mktemp("mesh") / "home") as running:
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
