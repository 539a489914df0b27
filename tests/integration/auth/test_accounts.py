"""Registering, and who an account is."""

import asyncio
from pathlib import Path

import psycopg
import pytest
from argon2 import PasswordHasher

from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from tests import harness
from tests.integration.auth import api

Auth = pb_grpc.AuthServiceStub


async def test_an_account_is_who_registered(auth: Auth) -> None:
    email = api.new_email()
    user = await api.register(auth, username=f"Ann.{email[:8]}", email=email.upper())

    assert (user.username, user.email) == (f"Ann.{email[:8]}", email)
    assert await api.me(auth, await api.login(auth, email)) == user


async def test_an_account_needs_no_username(auth: Auth) -> None:
    user = await api.register(auth)

    assert not (await api.me(auth, await api.login(auth, user.email))).HasField("username")


@pytest.mark.parametrize("field", ["username", "email"])
async def test_a_name_is_taken_in_any_case(auth: Auth, field: str) -> None:
    name = api.new_email()
    value = name if field == "email" else name[:30]
    await api.register(auth, **{field: value})

    refused = await api.refusal(api.register(auth, **{field: value.upper()}))

    assert refused == (
        "ALREADY_EXISTS",
        f"{field.upper()}_TAKEN",
        f"an account with this {field} exists",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"username": "ann@example.com"},
        {"username": "an"},
        {"username": "ann\0ann"},
        {"username": ""},
        {"email": "ann"},
        {"email": "ann\0@example.com"},
        {"email": "a" * 250 + "@example.com"},
        {"password": "1234567"},
        {"password": "password\0"},
        {"password": "x" * 257},
    ],
)
async def test_a_field_that_can_not_be_is_named(auth: Auth, fields: dict[str, str]) -> None:
    code, reason, message = await api.refusal(api.register(auth, **fields))

    assert (code, reason, message.split(":")[0]) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELDS",
        *fields,
    )


async def test_one_of_many_first_accounts_is_the_admin(
    admin_dsn: str, certificates_folder: Path
) -> None:
    empty = harness.new_database(admin_dsn, "first_accounts")
    async with (
        harness.running_mesh(empty, certificates_folder, "auth") as one,
        harness.running_mesh(empty, certificates_folder, "auth") as other,
    ):
        replicas = [await api.connect(one), await api.connect(other)]

        users = await asyncio.gather(*[api.register(auth) for auth in replicas * 4])
        later = await api.register(replicas[0])

    assert sorted(user.role for user in (*users, later)) == ["admin", *["user"] * 8]


async def test_production_refuses_weak_passwords(admin_dsn: str, certificates_folder: Path) -> None:
    settings = {"APP_ENV": "production"}
    async with harness.running_mesh(
        admin_dsn, certificates_folder, "auth", settings=settings
    ) as mesh:
        auth = await api.connect(mesh)
        refused = [
            await api.outcome(api.register(auth, password=password))
            for password in ("password123", "passwordpassword", "three owls in an elm")
        ]

    assert refused == ["WEAK_PASSWORD", "WEAK_PASSWORD", "OK"]


async def test_a_password_is_kept_as_a_hash_and_renewed_when_that_is_weak(
    auth: Auth, admin_dsn: str
) -> None:
    user = await api.register(auth)
    weak = PasswordHasher(1, 8, 1).hash(api.PASSWORD)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE auth.users SET password_hash = %s WHERE id = %s", [weak, user.id]
        )

        await api.login(auth, user.email)

        query = "SELECT password_hash FROM auth.users WHERE id = %s"
        (kept,) = connection.execute(query, [user.id]).fetchone() or ("",)
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await api.login(auth, user.email)


async def test_the_keys_are_published_to_the_edge_and_to_services(
    auth: Auth, auth_mesh: harness.Mesh
) -> None:
    keys = (await auth.GetJwks(pb.GetJwksRequest(), timeout=5)).keys
    chat = await api.connect(auth_mesh, "chat")

    (key,) = keys
    assert (await chat.GetJwks(pb.GetJwksRequest(), timeout=5)).keys == keys
    assert (key.kty, key.crv, key.use, key.alg) == ("OKP", "Ed25519", "sig", "EdDSA")
    assert (len(key.kid), len(key.x)) == (43, 43)


async def test_no_other_process_speaks_for_people(auth_mesh: harness.Mesh) -> None:
    auth = await api.connect(auth_mesh)
    tokens = await api.new_session(auth)

    reasons = set()
    for peer in ("chat", "items", "operator"):
        stub = await api.connect(auth_mesh, peer)
        reasons |= {
            await api.outcome(api.register(stub)),
            await api.outcome(api.login(stub, "ann@example.com")),
            await api.outcome(api.refresh(stub, tokens.refresh_token)),
            await api.outcome(api.me(stub, tokens)),
        }
    operator = await api.connect(auth_mesh, "operator")
    reasons.add(await api.outcome(operator.GetJwks(pb.GetJwksRequest(), timeout=5)))

    assert reasons == {"PEER_NOT_ALLOWED"}
