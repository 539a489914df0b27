"""One mesh for all tests of this kind, and the scripted provider behind it."""

from collections.abc import AsyncIterator

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.callers import new_callers
from tests.mesh.running import Account, Up, new_account, new_admin, started_with


@pytest.fixture(scope="session")
async def up(
    tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[Up]:
    folder = tmp_path_factory.mktemp("mesh")
    async with started_with(
        provider_server,
        folder / "home",
        CORS_ORIGINS="https://app.example",
    ) as running:
        yield running


@pytest.fixture(scope="session")
async def plain(
    tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[Up]:
    """A second mesh, with keys of all providers and nothing else changed."""
    folder = tmp_path_factory.mktemp("plain")
    async with started_with(
        provider_server,
        folder / "home",
        GROQ_API_KEY="gsk_the-operators-own-key",
        GROQ_BASE_URL=provider_server.url,
        HF_TOKEN="hf_the-operators-own-token",
        HF_BASE_URL=provider_server.url,
    ) as running:
        yield running


@pytest.fixture
async def account(up: Up) -> Account:
    return await new_account(up)


@pytest.fixture
async def admin(up: Up) -> str:
    """The access token of an admin."""
    return await new_admin(up)


@pytest.fixture
async def stranger(up: Up) -> Account:
    return await new_account(up)


@pytest.fixture(scope="session")
async def ordinary(up: Up) -> list[Account]:
    """Others, who call as ever."""
    return await new_callers(up)
