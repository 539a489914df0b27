"""Fixtures of all kinds of tests; what they give is real, see `harness`."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh import descriptors
from tests import harness
from tests.fake_openai import FakeOpenAI, Script

# Both ends of each connection, and all of a load, are in this process.
descriptors.raise_limit()
# Who runs tests by nohup, or in the background, ignores these; so would the processes of tests.
for _number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(_number, signal.SIG_DFL)


@pytest.fixture(scope="session")
async def admin_dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The administrator's URL of a migrated database that all tests share.

    Tests keep apart by accounts of their own. One that needs an empty database
    makes one with `harness.new_database`.
    """
    folder: Path = tmp_path_factory.mktemp("postgres")
    async with harness.running_postgres(folder) as admin:
        harness.migrate(admin)
        yield admin


@pytest.fixture(scope="session")
def certificates_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where certificates of this run lie: one authority for all meshes in it."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    return folder


@pytest.fixture(scope="session")
async def provider_server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI().serving() as fake:
        yield fake


@pytest.fixture
def provider(provider_server: FakeOpenAI) -> FakeOpenAI:
    """The scripted provider, with nothing asked and the plain script."""
    provider_server.script = Script()
    provider_server.first.clear()
    provider_server.requests.clear()
    return provider_server
