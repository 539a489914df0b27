"""The wire forms of an error: google.rpc.Status (AIP-193) and the JSON envelope.

`describe` is the one place where an exception becomes something a caller sees.
"""

import json
import math
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.protobuf import any_pb2, json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from mesh import errors, openai_errors

DOMAIN = "khesht"
# What clients wait for by themselves, at most (openai-python, `MAX_RETRY_AFTER_DELAY`).
_LONGEST_WAIT_S = 60

# Canonical name -> (HTTP status, kind of error as OpenAI's clients name it).
HTTP = {
    "CANCELLED": (499, "cancelled_error"),
    "INVALID_ARGUMENT": (400, "invalid_request_error"),
    "FAILED_PRECONDITION": (400, "invalid_request_error"),
    "UNAUTHENTICATED": (401, "authentication_error"),
    "PERMISSION_DENIED": (403, "permission_error"),
    "NOT_FOUND": (404, "not_found_error"),
    "ALREADY_EXISTS": (409, "conflict_error"),
    "ABORTED": (409, "conflict_error"),
    "RESOURCE_EXHAUSTED": (429, "rate_limit_error"),
    "INTERNAL": (500, "server_error"),
    "UNAVAILABLE": (503, "server_error"),
    "DEADLINE_EXCEEDED": (504, "server_error"),
}


@dataclass(frozen=True, slots=True)
class Description:
    """An error as callers see it, whatever way they called.

    `unknown` is true for what no code of ours foresaw: it has to be logged whole
    beside `message`, whose id is all that the caller is told. `body` is what HTTP
    callers read in place of the envelope.
    """

    status: str
    reason: str
    message: str
    details: tuple[Message, ...] = field(repr=False)
    retry_after_ms: int | None = None
    unknown: bool = False
    body: Mapping[str, object] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> grpc.StatusCode:
        """The gRPC status."""
        return grpc.StatusCode[self.status]

    @property
    def http_code(self) -> int:
        """The HTTP status."""
        return HTTP[self.status][0]

    @property
    def type(self) -> str:
        """The kind of error as OpenAI's clients name it."""
        return HTTP[self.status][1]

    @property
    def retry_after(self) -> int | None:
        """Whole seconds to wait, at least one (RFC 9110, section 10.2.3)."""
        ms = self.retry_after_ms
        return None if ms is None else max(1, math.ceil(ms / 1000))

    @property
    def is_final(self) -> bool:
        """Whether the same call fails again for as long as a client may wait by itself.

        Clients repeat calls that end with 409 or 429 (openai-python, `_should_retry`).
        """
        if self.status in ("ALREADY_EXISTS", "ABORTED"):
            return True
        if self.status != "RESOURCE_EXHAUSTED":
            return False
        if self.retry_after is None:
            return openai_errors.code(self.reason, self.metadata) == openai_errors.QUOTA
        return self.retry_after > _LONGEST_WAIT_S

    def packed_details(self) -> list[any_pb2.Any]:
        """The details as they stand in a google.rpc.Status."""
        packed = [any_pb2.Any() for _ in self.details]
        for target, detail in zip(packed, self.details, strict=True):
            target.Pack(detail)
        return packed

    def to_rpc_status(self) -> status_pb2.Status:
        """The google.rpc.Status that native callers read."""
        number = self.code.value[0]
        details = self.packed_details()
        return status_pb2.Status(code=number, message=self.message, details=details)

    def to_envelope(self, request_id: str, *, openai: bool = False) -> str:
        """The JSON body that HTTP callers read, in one line of ASCII.

        For OpenAI's clients `code` and `param` are what these are to them.
        """
        if self.body is not None:
            return json.dumps(self.body, separators=(",", ":"))
        details = [
            {"@type": f"type.googleapis.com/{detail.DESCRIPTOR.full_name}"}
            | json_format.MessageToDict(detail, preserving_proto_field_name=True)
            for detail in self.details
        ]
        error: dict[str, object] = {
            "code": self.http_code,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "type": self.type,
            "details": details,
            "request_id": request_id,
        }
        if openai:
            error |= self._in_openais_words()
        return json.dumps({"error": error}, separators=(",", ":"))

    def _in_openais_words(self) -> dict[str, object]:
        code = openai_errors.code(self.reason, self.metadata)
        wrong = [each for each in self.details if isinstance(each, error_details_pb2.BadRequest)]
        fields = [violation.field for each in wrong for violation in each.field_violations]
        return {
            "type": code if code == openai_errors.QUOTA else self.type,
            "param": openai_errors.param(self.reason, self.metadata, fields),
            "code": code,
        }


def describe(raised: BaseException) -> Description:
    """What callers may know of `raised`; of what is no MeshError, only an id."""
    if isinstance(raised, TimeoutError):
        raised = errors.no_time()
    elif isinstance(raised, grpc.aio.AioRpcError):
        raised = _of_dependency(raised)
    if not isinstance(raised, errors.MeshError):
        return _unknown()
    info = error_details_pb2.ErrorInfo(
        reason=raised.reason, domain=DOMAIN, metadata=raised.metadata
    )
    details: list[Message] = [info]
    if isinstance(raised, errors.InvalidRequest):
        wrong = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in raised.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=wrong))
    wait = raised.retry_after
    told = Description(
        raised.status,
        raised.reason,
        raised.message,
        tuple(details),
        None if wait is None else max(0, math.ceil(wait * 1000)),
        body=raised.body if isinstance(raised, errors.Degraded) else None,
        metadata=raised.metadata,
    )
    if told.retry_after is None:
        return told
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromSeconds(told.retry_after)
    return replace(told, details=(*details, retry))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason a call to the mesh failed for, or "" when none was given."""
    metadata: Iterable[tuple[str, Any]] = error.trailing_metadata() or ()
    for key, value in metadata:
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def _of_dependency(error: grpc.aio.AioRpcError) -> BaseException:
    """What the failure of a service we called means for our own caller."""
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return errors.Unavailable(
            "UNAVAILABLE", "a part of the mesh does not answer", retry_after=1
        )
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.no_time()
    return error


def _unknown() -> Description:
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    message = f"internal error {uuid.uuid4().hex}"
    return Description("INTERNAL", "INTERNAL", message, (info,), unknown=True)
