"""GetHealth of a chat that is not well, and of one that is alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import psycopg
import pytest

from khesht.chat.v1 import health_service_pb2 as pb
from khesht.chat.v1 import health_service_pb2_grpc as pb_grpc
from tests import harness
from tests.support import eventually

DATABASE = "of_a_chat_that_loses_it"


@pytest.fixture
async def mesh(admin_dsn: str, certificates_folder: Path) -> AsyncIterator[harness.Mesh]:
    own = harness.new_database(admin_dsn, DATABASE)
    async with harness.running_mesh(own, certificates_folder, "chat", "items") as mesh:
        yield mesh


async def problems(mesh: harness.Mesh) -> str:
    """What GetHealth says is wrong, as the edge is told it for HTTP."""
    edge = mesh.certificate("edge")
    credentials = grpc.ssl_channel_credentials(edge.authority, edge.key, edge.chain)
    # A channel of ours would refuse by itself to call a chat that is not ready; the edge does not.
    options = [("grpc.ssl_target_name_override", "chat.khesht.internal")]
    async with grpc.aio.secure_channel(mesh.addresses["chat"], credentials, options) as channel:
        stub = pb_grpc.HealthServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as degraded:
            await stub.GetHealth(
                pb.GetHealthRequest(), timeout=5, metadata=(("x-envoy-original-path", "/health"),)
            )
    assert degraded.value.code() is grpc.StatusCode.UNAVAILABLE
    trailers = dict(degraded.value.trailing_metadata() or ())
    return str(trailers["khesht-error"])


async def test_services_that_do_not_run_and_a_database_that_is_lost_are_named(
    mesh: harness.Mesh, admin_dsn: str
):
    alone = '"problems":["auth does not answer","keys does not answer","usage does not answer"]'
    assert alone in await problems(mesh)
    async with await psycopg.AsyncConnection.connect(admin_dsn, autocommit=True) as admin:
        await admin.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (DATABASE,)
        )

    async def lost() -> str:
        told = await problems(mesh)
        return told if "chat is not ready" in told and "items does not answer" in told else ""

    told = await eventually(lost, within=10)
    assert '"chat":"unhealthy"' in told
    assert '"status":"degraded"' in told
