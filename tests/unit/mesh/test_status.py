"""What callers are told of whatever is raised."""

import json
import re

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc.aio import Metadata

from mesh import errors, openai_errors, status

CODES = {
    errors.InvalidRequest: 400,
    errors.FailedPrecondition: 400,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.NotFound: 404,
    errors.Aborted: 409,
    errors.AlreadyExists: 409,
    errors.ResourceExhausted: 429,
    errors.MeshError: 500,
    errors.Unavailable: 503,
    errors.DeadlineExceeded: 504,
}
SECRET = "postgresql://khesht_auth:pass@10.0.0.7/khesht"


def made(kind: type[errors.MeshError]) -> errors.MeshError:
    if kind is errors.InvalidRequest:
        return errors.invalid("name", "must be short", reason="SOME_REASON")
    return kind("SOME_REASON", "name: must be short", metadata={"name": "é"})


def failed(code: grpc.StatusCode, *trailers: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, Metadata(), Metadata(*trailers), SECRET)


def test_the_table_has_every_error_there_is():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    # A class below one of these is told as that one is.
    tops = {kind for kind in kinds if errors.MeshError in (kind, kind.__base__)}
    assert tops == set(CODES)


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_an_error_has_one_status_in_every_form(kind: type[errors.MeshError]):
    described = status.describe(made(kind))
    wire = described.to_rpc_status()
    assert described.http_code == CODES[kind]
    assert described.code is grpc.StatusCode[kind.status]
    assert (wire.code, wire.message) == (described.code.value[0], "name: must be short")
    info = error_details_pb2.ErrorInfo()
    assert wire.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("SOME_REASON", "khesht")
    assert not described.unknown


@pytest.mark.parametrize("kind", CODES, ids=lambda kind: kind.__name__)
def test_the_envelope_is_one_line_of_ascii(kind: type[errors.MeshError]):
    text = status.describe(made(kind)).to_envelope("request\n\x7fé")
    error = json.loads(text)["error"]
    assert re.fullmatch(r"[ -~]+", text.replace("\x7f", ""))
    assert "\n" not in text
    assert list(error) == ["code", "status", "reason", "message", "type", "details", "request_id"]
    assert (error["code"], error["status"]) == (CODES[kind], kind.status)
    assert (error["reason"], error["message"]) == ("SOME_REASON", "name: must be short")
    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert error["request_id"] == "request\n\x7fé"


def test_every_status_has_a_type_as_openais_clients_know_them():
    types = {name: kind for name, (_, kind) in status.HTTP.items()}
    assert types["UNAUTHENTICATED"] == "authentication_error"
    assert types["RESOURCE_EXHAUSTED"] == "rate_limit_error"
    assert all(kind.endswith("_error") for kind in types.values())


def test_wrong_fields_are_named_each():
    wrong = [errors.Violation("a.b[0]", "is odd"), errors.Violation("", "is empty")]
    described = status.describe(errors.InvalidRequest(*wrong))
    assert described.message == "a.b[0]: is odd; is empty"
    assert described.reason == "INVALID_FIELDS"
    bad = error_details_pb2.BadRequest()
    assert described.packed_details()[1].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("a.b[0]", "is odd"),
        ("", "is empty"),
    ]


def test_of_many_wrong_fields_so_many_are_named_as_headers_hold():
    wrong = [errors.Violation(f"messages[{at}].content", "is too long") for at in range(1000)]
    described = status.describe(errors.InvalidRequest(*wrong))
    assert "messages[9].content" in described.message
    assert "messages[10].content" not in described.message
    assert described.to_rpc_status().ByteSize() + len(described.to_envelope("x" * 36)) < 8 << 10


@pytest.mark.parametrize(("given", "told"), [(0.0, 1), (0.2, 1), (1, 1), (2.01, 3), (540, 540)])
def test_seconds_to_wait_are_whole_and_never_none(given: float, told: int):
    described = status.describe(errors.Unavailable("X", "x", retry_after=given))
    retry = error_details_pb2.RetryInfo()
    assert described.retry_after == told
    assert described.packed_details()[-1].Unpack(retry)
    assert retry.retry_delay == duration_pb2.Duration(seconds=told)


def test_without_seconds_to_wait_there_is_no_word_of_them():
    described = status.describe(errors.Unavailable("X", "x"))
    assert described.retry_after is None
    assert len(described.details) == 1


@pytest.mark.parametrize("bug", [ValueError(SECRET), KeyError(SECRET), BaseException(SECRET)])
def test_a_bug_is_an_id_and_nothing_else(bug: BaseException):
    one, other = status.describe(bug), status.describe(bug)
    for described in (one, other):
        assert described.unknown
        assert (described.status, described.reason) == ("INTERNAL", "INTERNAL")
        assert re.fullmatch(r"internal error [0-9a-f]{32}", described.message)
        assert "pass" not in described.to_envelope("") + str(described.to_rpc_status())
    assert one.message != other.message


def test_a_timeout_is_the_deadline():
    assert status.describe(TimeoutError(SECRET)) == status.describe(errors.no_time())


@pytest.mark.parametrize(
    ("theirs", "ours", "unknown"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "UNAVAILABLE", False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", False),
        # None of the caller's business: what they did is not what we did.
        (grpc.StatusCode.UNAUTHENTICATED, "INTERNAL", True),
        (grpc.StatusCode.PERMISSION_DENIED, "INTERNAL", True),
        (grpc.StatusCode.INVALID_ARGUMENT, "INTERNAL", True),
        (grpc.StatusCode.NOT_FOUND, "INTERNAL", True),
        (grpc.StatusCode.INTERNAL, "INTERNAL", True),
    ],
)
def test_the_failure_of_another_service_is_told_in_our_own_words(theirs, ours, unknown):
    described = status.describe(failed(theirs))
    assert (described.status, described.unknown) == (ours, unknown)
    assert "10.0.0.7" not in described.to_envelope("")


def test_the_reason_is_read_back_from_the_wire():
    wire = status.describe(errors.NotFound("ITEM_NOT_FOUND", "x")).to_rpc_status()
    trailer = ("grpc-status-details-bin", wire.SerializeToString())
    assert status.reason_of(failed(grpc.StatusCode.NOT_FOUND, trailer)) == "ITEM_NOT_FOUND"
    assert status.reason_of(failed(grpc.StatusCode.NOT_FOUND)) == ""
    empty = ("grpc-status-details-bin", status_pb2.Status().SerializeToString())
    assert status.reason_of(failed(grpc.StatusCode.NOT_FOUND, empty)) == ""


def openais(raised: errors.MeshError) -> tuple[object, object, object]:
    told = status.describe(raised).to_envelope("id", openai=True)
    error = json.loads(told)["error"]
    return error["code"], error["param"], error["type"]


def test_openais_clients_are_told_in_openais_words():
    assert openais(errors.NotFound("MODEL_NOT_FOUND", "x")) == (
        *("model_not_found", "model"),
        "not_found_error",
    )
    assert openais(errors.ResourceExhausted("BUDGET_EXCEEDED", "x")) == (
        *("insufficient_quota", None),
        "insufficient_quota",
    )
    assert openais(errors.invalid("n", "too many")) == (None, "n", "invalid_request_error")
    assert openais(errors.invalid("", "no JSON")) == (None, None, "invalid_request_error")
    given = {"provider_code": "context_length_exceeded", "provider_param": "messages"}
    assert openais(errors.FailedPrecondition("PROVIDER_REFUSED", "x", metadata=given)) == (
        *("context_length_exceeded", "messages"),
        "invalid_request_error",
    )


@pytest.mark.parametrize(
    ("raised", "final"),
    [
        (errors.AlreadyExists("X", "x"), True),
        (errors.Aborted("X", "x"), True),
        (errors.ResourceExhausted("BUDGET_EXCEEDED", "x"), True),
        (errors.ResourceExhausted("BUDGET_EXCEEDED", "x", retry_after=86_400), True),
        (errors.ResourceExhausted("BUDGET_EXCEEDED", "x", retry_after=5), False),
        (errors.ResourceExhausted("X", "x", metadata={"provider_code": openai_errors.QUOTA}), True),
        (errors.ResourceExhausted("PROVIDER_RATE_LIMITED", "x"), False),
        (errors.Unavailable("X", "x"), False),
        (errors.invalid("x", "x"), False),  # Which no client repeats.
    ],
)
def test_what_no_wait_mends_is_final(raised: errors.MeshError, final: bool):
    assert status.describe(raised).is_final == final
