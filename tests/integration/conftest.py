"""Fixtures of integration tests: all services in this process, and a scripted provider."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from khesht.keys.v1 import keys_service_pb2_grpc as keys_grpc
from tests import harness, patience
from tests.fake_openai import FakeOpenAI, models_file

PROVIDER_KEY = "sk-the-operators-own-key"
# After any test; measured: 176 at most, where the tests of money leave pools at their widest.
MAX_DESCRIPTORS = 300
Metadata = tuple[tuple[str, str], ...]


@pytest.fixture(scope="session", autouse=True)
def open_descriptors() -> Iterator[list[int]]:
    """How many were open after each test. Fails at the end when tests left connections open."""
    counts: list[int] = []
    yield counts
    assert max(counts, default=0) <= MAX_DESCRIPTORS, f"open after tests: {counts}"


@pytest.fixture(autouse=True)
async def channels_of_a_test(open_descriptors: list[int]) -> AsyncIterator[None]:
    """Closes at its end what a test opened to the mesh that all share."""
    async with harness.closing_channels():
        yield
    open_descriptors.append(len(os.listdir("/proc/self/fd")))


@dataclass(frozen=True)
class Person:
    """An account of a test's own, and the metadata of its calls by either credential."""

    id: str
    token: str
    key: str
    key_id: str

    @property
    def by_token(self) -> Metadata:
        return harness.bearer(self.token)

    @property
    def by_key(self) -> Metadata:
        return harness.bearer(self.key)


@pytest.fixture(scope="session")
async def mesh(
    admin_dsn: str, certificates_folder: Path, provider_server: FakeOpenAI
) -> AsyncIterator[harness.Mesh]:
    settings = {
        "OPENAI_API_KEY": PROVIDER_KEY,
        "OPENAI_BASE_URL": provider_server.url,
        "GROQ_API_KEY": "gsk_the-operators",
        "GROQ_BASE_URL": provider_server.url,
        "HF_TOKEN": "hf_the-operators",
        "HF_BASE_URL": provider_server.url,
        "MODELS_FILE": models_file(certificates_folder),
        "PROVIDER_IDLE_TIMEOUT": "1",
        "PROVIDER_FIRST_BYTE_TIMEOUT": "1",
        "PROVIDER_CONNECT_TIMEOUT": "1",
        "RATE_LIMIT_PER_MINUTE": "1000",
    }
    services = ("auth", "keys", "usage", "items", "chat")
    async with harness.running_mesh(
        admin_dsn, certificates_folder, *services, settings=settings
    ) as running:
        yield running


@pytest.fixture
async def person(mesh: harness.Mesh) -> Person:
    return await new_person(mesh)


@pytest.fixture
async def stranger(mesh: harness.Mesh) -> Person:
    return await new_person(mesh)


async def new_person(mesh: harness.Mesh) -> Person:
    """A new account with one key."""
    auth = auth_grpc.AuthServiceStub(await mesh.channel("auth"))
    email, password = f"{uuid.uuid4().hex}@example.com", "password123"
    request = auth_pb.RegisterRequest(email=email, password=password)
    # Other tests let the database go away; what lives on it is well again in a moment.
    user = await auth.Register(request, timeout=patience.patient(20), wait_for_ready=True)
    login = auth_pb.LoginRequest(email=email, password=password)
    token = (await auth.Login(login, timeout=patience.patient(5), wait_for_ready=True)).access_token
    keys = keys_grpc.KeysServiceStub(await mesh.channel("keys"))
    key = await keys.CreateApiKey(
        keys_pb.CreateApiKeyRequest(name="test"),
        timeout=patience.patient(5),
        wait_for_ready=True,
        metadata=harness.bearer(token),
    )
    return Person(user.id, token, key.key, key.id)
