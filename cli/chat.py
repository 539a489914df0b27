"""`khesht chat`: a terminal client over gRPC, made of the stubs alone."""

import getpass
import signal
from collections.abc import Mapping
from pathlib import Path

import grpc

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from khesht.chat.v1 import health_service_pb2 as health_pb
from khesht.chat.v1 import health_service_pb2_grpc as health_grpc
from mesh.local.errors import LocalError
from mesh.time_limits import MODEL_CALL_OF_CLIENT_S

_LOOK_TIMEOUT_S = 10.0
"""How long a server may take to say that it is there."""


class _Expired(Exception):
    """The access token's time is over."""


async def talk(address: str, username: str, password: str, model: str, *, tls: bool) -> bool:
    """Whether every message that was typed until the input ended had a whole reply.

    Looks for the server, then asks for what is missing, and logs in. Raises LocalError
    when the mesh can't be reached, refuses the login or has no such model.
    """
    made = (
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials())
        if tls
        else grpc.aio.insecure_channel(address)
    )
    async with made as channel:
        await _look(channel, address)
        username = username or _line("username or email> ")
        password = password or getpass.getpass("password> ")
        token = await _log_in(channel, username, password)
        if model:
            await _find(channel, token, model)
        print("Type a message; an empty line or Ctrl-D ends.")
        chat_id, whole = None, True
        while message := _line("you> "):
            try:
                stored = await _reply(channel, token, message, model, chat_id)
            except _Expired:
                token = await _log_in(channel, username, password)
                stored = await _reply(channel, token, message, model, chat_id)
            whole = whole and stored is not None
            chat_id = stored or chat_id
    return whole


def check_model(name: str, environment: Mapping[str, str]) -> None:
    """Raises LocalError when the mesh that these settings are for has no model of that name."""
    from services.chat.config import Config
    from services.chat.domain.models import ModelsFile

    path = Path(environment.get("MODELS_FILE") or Config.model_fields["models_file"].default)
    try:
        models = ModelsFile.read(path).models
    except ValueError as wrong:
        raise LocalError(f"MODELS_FILE: {path}: {wrong}") from None
    if not any(name in (model.id, *model.aliases) for model in models):
        known = ", ".join(model.id for model in models)
        raise LocalError(f"no model {name} in {path}; there is {known}")


async def _look(channel: grpc.aio.Channel, address: str) -> None:
    """Raises LocalError when no mesh answers; one that is not well is told of, and tried."""
    stub = health_grpc.HealthServiceStub(channel)
    try:
        await stub.GetHealth(health_pb.GetHealthRequest(), timeout=_LOOK_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if channel.get_state() is not grpc.ChannelConnectivity.READY:
            raise LocalError(
                f"no khesht answers at {address}. Start one by `make run` in another terminal, "
                "or say where one is by --address HOST:PORT (and --tls where it speaks TLS)"
            ) from None
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise LocalError(f"what answers at {address} is no khesht; see --address") from None
        print(f"khesht at {address} is not well: {error.details()}")


async def _find(channel: grpc.aio.Channel, token: str, model: str) -> None:
    """Raises LocalError when the mesh says that it has no such model."""
    request = chat_pb.GetModelRequest(model_id=model)
    metadata = (("authorization", f"Bearer {token}"),)
    try:
        await chat_grpc.ChatServiceStub(channel).GetModel(request, timeout=10, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            raise LocalError(str(error.details())) from None
        # Anything else is told with the first reply.


async def _log_in(channel: grpc.aio.Channel, username: str, password: str) -> str:
    request = auth_pb.LoginRequest(password=password)
    if "@" in username:
        request.email = username
    else:
        request.username = username
    try:
        answer = await auth_grpc.AuthServiceStub(channel).Login(request, timeout=10)
    except grpc.aio.AioRpcError as error:
        raise LocalError(f"can't log in: {error.details()}") from None
    return answer.access_token


async def _reply(
    channel: grpc.aio.Channel, token: str, message: str, model: str, chat_id: str | None
) -> str | None:
    """Prints a reply as it is made; the chat's id, or None when it failed."""
    request = chat_pb.StreamReplyRequest(message=message, chat_id=chat_id)
    if model:
        request.model = model
    events = chat_grpc.ChatServiceStub(channel).StreamReply(
        request, timeout=MODEL_CALL_OF_CLIENT_S, metadata=(("authorization", f"Bearer {token}"),)
    )
    last = None
    try:
        async for event in events:
            match event.WhichOneof("event"):
                case "token":
                    print(event.token, end="", flush=True)
                case "done":
                    print(f"\n[{event.model}, {event.usage.total_tokens} tokens]")
                    last = event.chat_id
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            raise _Expired from None
        print(f"\n{error.details()}")
    return last


def _line(prompt: str) -> str:
    """A line of input, "" at its end. Ctrl-C ends the program here, as nothing else runs."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input(prompt).encode(errors="replace").decode().strip()
    except EOFError:
        return ""
    finally:
        signal.signal(signal.SIGINT, former)
