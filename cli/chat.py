"""`khesht chat`: a terminal client over gRPC, made of the stubs alone."""

import getpass
import signal

import grpc

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from mesh.local.errors import LocalError


class _Expired(Exception):
    """The access token's time is over."""


async def talk(address: str, username: str, password: str, model: str, *, tls: bool) -> bool:
    """Whether every message that was typed until the input ended had a whole reply.

    Asks for what is missing, and logs in. Raises LocalError when the mesh can't be
    reached or refuses the login.
    """
    made = (
        grpc.aio.secure_channel(address, grpc.ssl_channel_credentials())
        if tls
        else grpc.aio.insecure_channel(address)
    )
    async with made as channel:
        username = username or _line("username or email> ")
        password = password or getpass.getpass("password> ")
        token = await _log_in(channel, username, password)
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
        request, timeout=600, metadata=(("authorization", f"Bearer {token}"),)
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
