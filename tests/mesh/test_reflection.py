"""Reflection and health through the native port."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as pb

from mesh.reflection import PUBLIC
from tests import harness
from tests.mesh.running import ROOT, Account, Up, started

VERSIONS = ("v1", "v1alpha")
LIST = pb.ServerReflectionRequest(list_services="")


async def asked(
    up: Up, version: str, request: pb.ServerReflectionRequest, key: str = ""
) -> pb.ServerReflectionResponse:
    """The first answer on a stream that its caller does not end."""
    path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        call = channel.stream_stream(
            path,
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )(metadata=harness.bearer(key) if key else (), timeout=10)
        await call.write(request)
        answer = await call.read()
        assert isinstance(answer, pb.ServerReflectionResponse)
        return answer


@pytest.mark.parametrize("version", VERSIONS)
async def test_whoever_is_known_is_told_all_public_services(up: Up, account: Account, version: str):
    for credential in (account.key, account.token):
        listed = (await asked(up, version, LIST, credential)).list_services_response
        names = {each.name for each in listed.service if each.name.startswith("khesht.")}
        assert names == set(PUBLIC)
    for name in PUBLIC:
        request = pb.ServerReflectionRequest(file_containing_symbol=name)
        answer = await asked(up, version, request, account.key)
        assert answer.file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize("version", VERSIONS)
async def test_whoever_is_not_known_is_told_nothing(up: Up, version: str):
    for key in ("", "ai_nonsense"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked(up, version, LIST, key)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
async def in_production(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    home = tmp_path_factory.mktemp("production") / "home"
    async with started(home, APP_ENV="production") as running:
        yield running


@pytest.mark.parametrize("version", VERSIONS)
async def test_in_production_it_is_unimplemented_at_once(in_production: Up, version: str):
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asked(in_production, version, LIST)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert time.monotonic() - began < 5


async def buf_curl(up: Up, port: int, *arguments: str) -> tuple[int, str]:
    """The exit status and the output of `buf curl` about a server."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(ROOT) / ".venv/bin/buf"), "curl", *arguments, f"http://127.0.0.1:{port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 15)
    return process.returncode or 0, output.decode()


async def test_buf_lists_the_services(up: Up, account: Account):
    key = f"Authorization: Bearer {account.key}"
    native = ("--protocol", "grpc", "--http2-prior-knowledge", "--list-services")
    code, output = await buf_curl(up, up.grpc, *native, "--reflect-header", key, "-H", key)
    assert (code, set(PUBLIC) - set(output.split())) == (0, set()), output


async def test_buf_is_told_at_once_where_there_is_none(up: Up, in_production: Up):
    native = ("--protocol", "grpc", "--http2-prior-knowledge", "--list-services")
    for running, port, protocol in (
        (in_production, in_production.grpc, native),
        (up, up.gateway, ("--protocol", "grpcweb", "--list-services")),
    ):
        code, output = await buf_curl(running, port, *protocol)
        assert code != 0
        assert "unimplemented" in output.lower()


async def test_the_health_of_the_mesh_is_told_to_anyone(up: Up):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stub.Watch(health_pb2.HealthCheckRequest(), timeout=5):
                pass
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
