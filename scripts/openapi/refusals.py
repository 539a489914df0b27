"""Examples of errors: what a caller reads when a call is refused for a reason."""

import json
import re

from google.protobuf.message import Message
from google.rpc import error_details_pb2

from mesh import openai_errors, status
from scripts.openapi.contracts import Contracts
from scripts.openapi.written import Schema

_REQUEST_ID = "5f2b0a4e-6a3d-4d0e-9d57-0d4b1f9c2a11"
_WAIT_S = 3
# Statuses that no service gives, and the gRPC status beside each (gateway/errors.lua).
_OF_THE_EDGE = {413: "INVALID_ARGUMENT"}
_FIELD = re.compile(r"([\w.\[\]]+): (.+)")


def example(contracts: Contracts, reasons: list[str], *, openai: bool) -> Schema:
    """The body that refuses a call, made as services make it.

    Of `reasons`, which have one status, a wrong field is shown where that may be, or else
    the first: those that all calls have are last.
    """
    reason = "INVALID_FIELDS" if "INVALID_FIELDS" in reasons else reasons[0]
    code, message = contracts.reasons[reason].code, contracts.reasons[reason].message
    info = error_details_pb2.ErrorInfo(reason=reason, domain=status.DOMAIN)
    details: list[Message] = [info]
    if blamed := _FIELD.fullmatch(message) if code == 400 else None:
        wrong = error_details_pb2.BadRequest.FieldViolation(field=blamed[1], description=blamed[2])
        details.append(error_details_pb2.BadRequest(field_violations=[wrong]))
    if code == 503 or (code == 429 and openai_errors.code(reason, {}) != openai_errors.QUOTA):
        retry = error_details_pb2.RetryInfo()
        wait = re.search(r"wait (\d+)", message)
        retry.retry_delay.FromSeconds(int(wait[1]) if wait else _WAIT_S)
        details.append(retry)
    told = status.Description(_status(contracts, reason, code), reason, message, tuple(details))
    body: Schema = json.loads(told.to_envelope(_REQUEST_ID, openai=openai))
    if code in _OF_THE_EDGE:
        body["error"] |= {"details": []} | ({} if openai else {"code": code})
    return body


def _status(contracts: Contracts, reason: str, code: int) -> str:
    """The gRPC status that comments of RPCs give to `reason`, or the usual one of `code`."""
    if code in _OF_THE_EDGE:
        return _OF_THE_EDGE[code]
    usual = [name for name, (http, _) in status.HTTP.items() if http == code]
    said = " ".join(method.comment for method in contracts.methods)
    named = re.findall(rf"\b({'|'.join(usual)}) with (?:`[A-Z_]+`(?:,| or|, or) )*`{reason}`", said)
    return str((named or usual)[0])
