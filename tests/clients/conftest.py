"""A mesh, and a scripted provider behind it, for clients that are installed as their users do."""

from collections.abc import AsyncIterator

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.running import Account, Up, new_account, new_admin, started_with


@pytest.fixture(scope="session")
async def up(
    tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[Up]:
    folder = tmp_path_factory.mktemp("mesh")
    async with started_with(
        provider_server,
        folder / "home",
        RATE_LIMIT_PER_MINUTE="100000",
    ) as running:
        yield running


@pytest.fixture
async def account(up: Up) -> Account:
    return await new_account(up)


@pytest.fixture(scope="session")
async def admin(up: Up) -> str:
    """The access token of an admin."""
    return await new_admin(up)
