"""Every process against every method: exactly those that are listed get in."""

from pathlib import Path

import grpc
import pytest

from mesh.local import certificates
from tests.contract.described import SERVICES
from tests.harness import Mesh
from tests.integration.conftest import Person
from tests.integration.mesh.rpc import STREAMS, UNARY, channel, credentials_of, outcome

PROCESSES = ("edge", "operator", *SERVICES)
METHODS = [*UNARY, *STREAMS]
# Who may call what; all other methods are for the edge alone.
LISTED = {
    "/khesht.auth.v1.AuthService/GetJwks": {"edge", *SERVICES},
    "/khesht.auth.v1.AuthInternalService/CheckCallers": {"chat"},
    "/khesht.keys.v1.KeysInternalService/Authorize": set(SERVICES),
    "/khesht.keys.v1.KeysInternalService/CheckKeys": {"chat"},
    "/khesht.usage.v1.UsageInternalService/HoldBudget": {"chat"},
    "/khesht.usage.v1.UsageInternalService/CheckHolds": {"chat"},
    "/khesht.usage.v1.UsageInternalService/RenewHolds": {"chat"},
    "/khesht.usage.v1.UsageInternalService/ReleaseHolds": {"chat"},
    "/khesht.keys.v1.KeysInternalService/SpendTokens": {"chat"},
    "/khesht.keys.v1.KeysInternalService/GetProviderCredential": {"chat"},
    "/khesht.usage.v1.UsageInternalService/RecordUsage": {"chat"},
    "/khesht.usage.v1.UsageInternalService/AdjustUsage": {"operator"},
}
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def of_authority(mesh: Mesh, folder: Path, name: str) -> grpc.ChannelCredentials:
    """A certificate called `name` by the authority in `folder`, of one that trusts the mesh."""
    files = certificates.issue(folder, [name])[name]
    trusted = mesh.certificate("edge").authority
    return grpc.ssl_channel_credentials(trusted, files.key.read_bytes(), files.cert.read_bytes())


async def let_in(mesh: Mesh, credentials: grpc.ChannelCredentials, service: str) -> dict[str, bool]:
    """For each method of a service, whether the caller got past the check of peers."""
    found = {}
    async with channel(mesh, service, credentials) as opened:
        for method in METHODS:
            if method.service == service:
                ended = await outcome(opened, method)
                assert ended.code is not grpc.StatusCode.UNAVAILABLE, ended
                found[method.name] = ended.reason != "PEER_NOT_ALLOWED"
        found[HEALTH] = (await outcome(opened, HEALTH)).code is grpc.StatusCode.OK
    return found


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("peer", PROCESSES)
async def test_exactly_the_listed_processes_get_in(mesh: Mesh, peer: str, service: str):
    found = await let_in(mesh, credentials_of(mesh, peer), service)
    own = [method.name for method in METHODS if method.service == service]
    wanted = {name: peer in LISTED.get(name, {"edge"}) for name in own}
    assert found == {**wanted, HEALTH: True}
    assert own


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", ["rogue", "edge.evil", "EDGE", "edge/..", "khesht"])
async def test_another_name_of_the_same_authority_gets_in_nowhere(
    mesh: Mesh, certificates_folder: Path, tmp_path: Path, service: str, name: str
):
    for file in ("ca.crt", "ca.key"):
        (tmp_path / file).write_bytes((certificates_folder / file).read_bytes())
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    found = await let_in(mesh, of_authority(mesh, tmp_path, name), service)
    assert not any(found.values())


@pytest.mark.parametrize("service", SERVICES)
async def test_who_is_not_of_the_authority_gets_no_connection(
    mesh: Mesh, tmp_path: Path, service: str
):
    own = mesh.certificate("edge")
    strangers = {
        "another authority": of_authority(mesh, tmp_path, "edge"),
        "no certificate": grpc.ssl_channel_credentials(own.authority),
    }
    for stranger, credentials in strangers.items():
        async with channel(mesh, service, credentials) as opened:
            for name in (HEALTH, *(each.name for each in UNARY if each.service == service)):
                ended = await outcome(opened, name, timeout=2)
                assert ended.code is grpc.StatusCode.UNAVAILABLE, (stranger, name)
    async with grpc.aio.insecure_channel(mesh.addresses[service]) as opened:
        ended = await outcome(opened, HEALTH, timeout=2)
        assert ended.code is grpc.StatusCode.UNAVAILABLE
    async with channel(mesh, service, credentials_of(mesh, "edge")) as opened:
        assert (await outcome(opened, HEALTH)).code is grpc.StatusCode.OK


@pytest.mark.parametrize("service", SERVICES)
async def test_only_the_operator_and_known_callers_may_ask_what_is_served(
    mesh: Mesh, person: Person, service: str
):
    for peer, metadata, code in (
        ("operator", (), grpc.StatusCode.OK),
        ("edge", person.by_key, grpc.StatusCode.OK),
        ("edge", (), grpc.StatusCode.UNAUTHENTICATED),
        ("chat", person.by_key, grpc.StatusCode.PERMISSION_DENIED),
    ):
        async with channel(mesh, service, credentials_of(mesh, peer)) as opened:
            call = opened.stream_stream(REFLECTION)(timeout=5, metadata=metadata)
            await call.done_writing()
            assert await call.code() is code, peer


async def test_what_is_no_question_of_reflection_is_told_so(mesh: Mesh, person: Person):
    async with channel(mesh, "items", credentials_of(mesh, "edge")) as opened:
        call = opened.stream_stream(REFLECTION)(timeout=5, metadata=person.by_key)
        await call.write(b"\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_method_that_is_not_there_is_not_served(mesh: Mesh):
    async with channel(mesh, "items", credentials_of(mesh, "edge")) as opened:
        ended = await outcome(opened, "/khesht.items.v1.ItemsService/Nothing")
    assert ended.code is grpc.StatusCode.UNIMPLEMENTED
