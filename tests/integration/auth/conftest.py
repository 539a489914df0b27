"""A mesh of auth alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from tests import harness
from tests.integration.auth import api


@pytest.fixture(scope="session")
async def auth_mesh(admin_dsn: str, certificates_folder: Path) -> AsyncIterator[harness.Mesh]:
    async with harness.running_mesh(admin_dsn, certificates_folder, "auth") as mesh:
        yield mesh


@pytest.fixture(scope="session")
async def auth(auth_mesh: harness.Mesh) -> pb_grpc.AuthServiceStub:
    return await api.connect(auth_mesh)
