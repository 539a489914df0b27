"""What tests of auth say to it, as the edge."""

import uuid
from collections.abc import Awaitable
from typing import Any

import grpc

from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from mesh import status
from tests import harness

PASSWORD = "password123"


async def connect(mesh: harness.Mesh, peer: str = "edge") -> pb_grpc.AuthServiceStub:
    return pb_grpc.AuthServiceStub(await mesh.channel("auth", peer))


def new_email() -> str:
    return f"{uuid.uuid4().hex}@example.com"


def by(address: str, **more: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a client with this network address."""
    return (("x-khesht-client-address", address), *more.items())


def bearer(tokens: pb.LoginResponse) -> tuple[tuple[str, str], ...]:
    return harness.bearer(tokens.access_token)


async def register(auth: pb_grpc.AuthServiceStub, **fields: str) -> pb.RegisterResponse:
    given = {"email": new_email(), "password": PASSWORD} | fields
    return await auth.Register(pb.RegisterRequest(**given), timeout=10)


async def login(
    auth: pb_grpc.AuthServiceStub, email: str, password: str = PASSWORD, address: str = ""
) -> pb.LoginResponse:
    request = pb.LoginRequest(email=email, password=password)
    return await auth.Login(request, timeout=10, metadata=by(address))


async def new_session(auth: pb_grpc.AuthServiceStub) -> pb.LoginResponse:
    """A session of a new account."""
    return await login(auth, (await register(auth)).email)


async def refresh(auth: pb_grpc.AuthServiceStub, refresh_token: str) -> pb.LoginResponse:
    request = pb.RefreshTokenRequest(refresh_token=refresh_token)
    return await auth.RefreshToken(request, timeout=10)


async def me(auth: pb_grpc.AuthServiceStub, tokens: pb.LoginResponse) -> pb.RegisterResponse:
    answer = await auth.GetMe(pb.GetMeRequest(), timeout=10, metadata=bearer(tokens))
    return pb.RegisterResponse.FromString(answer.SerializeToString())


async def outcome(call: Awaitable[Any]) -> str:
    """The reason that `call` is refused for, or "OK"."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return status.reason_of(error) or error.code().name
    return "OK"


async def refusal(call: Awaitable[Any]) -> tuple[str, str, str]:
    """The status, reason and text that `call` is refused with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code().name, status.reason_of(error), error.details() or ""
    raise AssertionError(f"answered {answer}")
