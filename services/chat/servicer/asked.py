"""What the requests for replies have in common, read from any of them."""

import hashlib
import re
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import Message

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from mesh import errors
from mesh.calls import call
from services.chat.domain.conversation import Ask, Terms, Turn

_HEADER = "idempotency-key"
_NAME = re.compile(r"[!-~]{1,100}")
# How a reply is asked for, and not what is asked.
_BESIDE = ("request_id", "on_disconnect", "api_key")


def ask_of(
    request: pb.CreateReplyRequest | pb.StreamReplyRequest | tasks_pb.CreateTaskRequest,
) -> Ask:
    """What a caller wants to be answered."""
    own = None
    if not isinstance(request, tasks_pb.CreateTaskRequest) and request.HasField("api_key"):
        own = request.api_key
    return Ask(
        message=request.message,
        turns=tuple(Turn(turn.role, turn.content) for turn in request.messages),
        system_prompt=request.system_prompt,
        chat_id=UUID(request.chat_id) if request.HasField("chat_id") else None,
        model=request.model,
        max_tokens=request.max_tokens if request.HasField("max_tokens") else None,
        temperature=request.temperature if request.HasField("temperature") else None,
        store=request.store if request.HasField("store") else None,
        key=own,
        truncates=request.truncation != "off",
    )


def terms(request: Message) -> Terms:
    """How a request is to be treated. Raises InvalidRequest."""
    given = {field.name: value for field, value in request.ListFields()}
    header = _named()  # Read in any case: a wrong one is told, also where it does not count.
    name = given.get("request_id") or header
    lasts = given.get("on_disconnect") == "finish"
    if name is None:
        return Terms(call.current().request_id, lasts=lasts)
    body = type(request)()
    body.CopyFrom(request)
    for field in _BESIDE:
        if field in given:
            body.ClearField(field)
    return named(name, body.SerializeToString(deterministic=True), lasts=lasts)


def terms_of_body(body: HttpBody) -> Terms:
    """How a request of this body is to be treated. Raises InvalidRequest."""
    name = _named()
    return Terms(call.current().request_id) if name is None else named(name, body.data)


def named(name: str, body: bytes, *, lasts: bool = False) -> Terms:
    """The terms of a request that may be repeated: of the same method, with the same body."""
    now = call.current()
    digest = hashlib.sha256(now.method.encode() + b"\0" + body).digest()
    return Terms(now.request_id, name, digest, lasts)


def _named() -> str | None:
    name = call.current().metadata.get(_HEADER)
    if name is not None and not _NAME.fullmatch(name):
        raise errors.invalid("Idempotency-Key", "1 to 100 printable ASCII characters, no spaces")
    return name
