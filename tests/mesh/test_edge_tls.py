"""The edge's ports with a certificate of the operator's: HTTPS, and native gRPC over TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import grpc
import pytest

from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from mesh.local import certificates
from mesh.local.certificates import Identity
from tests.mesh.running import Up, started

LOGIN = {"email": "ada@example.com", "password": "password123"}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A certificate for localhost, by an authority that the mesh knows nothing of."""
    return certificates.issue(tmp_path_factory.mktemp("public"), ["public"])["public"]


@pytest.fixture(scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory, public: Identity) -> AsyncIterator[Up]:
    async with started(
        tmp_path_factory.mktemp("secure") / "home",
        EDGE_TLS_CERT_FILE=str(public.cert),
        EDGE_TLS_KEY_FILE=str(public.key),
        WORKERS="0",
    ) as running:
        yield running


def trusting(public: Identity, highest: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that offers TLS up to `highest`, however old."""
    context = ssl.create_default_context(cafile=str(public.ca))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = highest
    return context


async def negotiated(port: int, context: ssl.SSLContext, *protocols: str) -> tuple[str, str | None]:
    """The version and the application protocol of a connection to `port`."""
    context.set_alpn_protocols(protocols)
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    made = writer.get_extra_info("ssl_object")
    writer.close()
    return made.version(), made.selected_alpn_protocol()


async def test_rest_is_https(secure: Up, public: Identity):
    url = f"https://localhost:{secure.gateway}"
    trusted = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(public.ca)))
    async with (
        aiohttp.ClientSession(url, connector=trusted) as session,
        session.post("/auth/register", json=LOGIN) as answer,
    ):
        assert answer.status == 200, await answer.text()
    assert f"REST, SSE, gRPC-Web   {url}\n" in "".join(secure.output)


async def test_native_grpc_is_over_tls(secure: Up, public: Identity):
    credentials = grpc.ssl_channel_credentials(public.ca.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{secure.grpc}", credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            request = pb.LoginRequest(email="nobody@example.com", password="password123")
            await pb_grpc.AuthServiceStub(channel).Login(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_plain_text_is_not_answered(secure: Up):
    for port in (secure.gateway, secure.grpc):
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://localhost:{port}/api/health")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_only_tls_1_2_and_1_3_are_spoken(secure: Up, public: Identity):
    versions = ssl.TLSVersion
    for port, protocol in ((secure.gateway, "http/1.1"), (secure.grpc, "h2")):
        for highest, name in ((versions.TLSv1_2, "TLSv1.2"), (versions.TLSv1_3, "TLSv1.3")):
            made = await negotiated(port, trusting(public, highest), protocol)
            assert made == (name, protocol)
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            await negotiated(port, trusting(public, versions.TLSv1_1), protocol)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"EDGE_TLS_CERT_FILE": "{cert}", "EDGE_TLS_KEY_FILE": ""}, "EDGE_TLS_KEY_FILE is missing"),
        ({"EDGE_TLS_KEY_FILE": "/none"}, "EDGE_TLS_KEY_FILE: can't read /none"),
        ({"EDGE_TLS_KEY_FILE": "{other}"}, "KEY_VALUES_MISMATCH"),
        ({"EDGE_ADDRESS": "here"}, "EDGE_ADDRESS is 'here'"),
    ],
    ids=["half", "missing", "mismatch", "address"],
)
async def test_settings_that_would_not_do_are_named(
    secure: Up, public: Identity, settings: dict[str, str], named: str
):
    other = certificates.issue(public.cert.parent, ["other"])["other"]
    places: dict[str, Path] = {"cert": public.cert, "other": other.key}
    kept = secure.environment
    given = {name: value.format(**places) for name, value in settings.items()}
    secure.environment = {**kept, **given}
    try:
        code, output = await secure.khesht("check-config")
    finally:
        secure.environment = kept
    assert (code, named in output) == (2, True), output
