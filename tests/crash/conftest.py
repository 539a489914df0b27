"""A mesh whose processes die where they are told to, and a provider that counts what it sent."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import failpoints
from tests.crash.campaign import Campaign
from tests.fake_openai import FakeOpenAI, models_file
from tests.mesh.running import started


@pytest.fixture(scope="session")
async def campaign(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Campaign]:
    """The mesh, armed by files in a folder; two workers, so that one may take over."""
    folder: Path = tmp_path_factory.mktemp("crash")
    places = folder / "places"
    places.mkdir()
    async with FakeOpenAI().serving() as provider:
        settings = {
            failpoints.VARIABLE: str(places),
            "MODELS_FILE": models_file(folder),
            "OPENAI_API_KEY": "sk-of-the-operator",
            "OPENAI_BASE_URL": provider.url,
            "WORKERS": "2",
            "RATE_LIMIT_PER_MINUTE": "100000",
        }
        async with started(folder / "home", **settings) as up:
            yield await Campaign.of(up, provider, places)
