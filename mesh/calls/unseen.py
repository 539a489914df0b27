"""What a caller of REST has sent that its message does not show: the transcoder drops it.

A field of no such name would be a limit that is never set, and a filter without a value no
filter. The edge tells the names in a body (gateway/names.lua) and leaves the query in the path.
"""

from functools import lru_cache
from urllib.parse import parse_qsl

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from mesh import errors
from mesh.calls.call import Call

NAMES = "x-khesht-names"
NO_BODY = "x-khesht-no-body"
# Lists take back the token that they gave, which is empty on the last page.
_MAY_BE_EMPTY = frozenset({"page_token", "pageToken"})


def unknown_names(call: Call, request: Message) -> tuple[str, ...]:
    """The fields in the body that its message has not, as paths without indexes."""
    names = call.metadata.get(NAMES)
    return _unknown(request.DESCRIPTOR, names) if names else ()


def check_body(call: Call) -> None:
    """Raises InvalidRequest for a PUT without a body: an empty object would say that it means it."""
    if NO_BODY in call.metadata:
        text = "the body is missing; {} leaves all of it out"
        raise errors.invalid("", text, reason="MALFORMED_REQUEST")


def check_query(call: Call) -> None:
    """Raises InvalidRequest that names each parameter of the query that has no value."""
    _, _, query = call.metadata.get("x-envoy-original-path", "").partition("?")
    if not query:
        return
    given = parse_qsl(query, keep_blank_values=True)
    empty = {name: None for name, value in given if not value and name not in _MAY_BE_EMPTY}
    if empty:
        wrong = (errors.Violation(name, "must not be empty; leave it out") for name in empty)
        raise errors.InvalidRequest(*wrong)


@lru_cache(maxsize=1024)
def _unknown(message: Descriptor, names: str) -> tuple[str, ...]:
    if any(field.message_type is HttpBody.DESCRIPTOR for field in message.fields):
        return ()  # What such a body is, its service says.
    unknown = [path for path in names.split(",") if not _has(message, path.split("."))]
    # What stands in a field that there is not is not told besides.
    return tuple(path for path in unknown if path.rpartition(".")[0] not in unknown)


def _has(message: Descriptor | None, path: list[str]) -> bool:
    for name in path:
        if message is None:
            return False
        field = message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)
        if field is None:
            return False
        message = field.message_type
    return True
