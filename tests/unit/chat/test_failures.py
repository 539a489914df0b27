"""What providers say went wrong, in all their shapes, and what our callers are told of it."""

import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.chat.domain.provider import Account, Declined, QuotaSpent, RateLimited
from services.chat.providers import retry_after
from services.chat.providers.codecs import failure
from services.chat.providers.codecs.failure import Failure
from services.chat.providers.failures import Failures

KEY = "sk-the-operators-own-key"
FAILURES = Failures(Account("p", "https://p.example", KEY))


def of_body(status: int, body: object) -> Failure:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return failure.of_body(status, data)


@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        (
            {"error": {"message": "Too long", "type": "t", "param": "messages", "code": "c"}},
            *("Too long", "c", "messages"),
        ),
        (
            {"error": {"message": "Too long", "type": "t", "param": None, "code": None}},
            "Too long",
            "",
            "",
        ),
        ({"error": {"message": "Too long", "code": 400}}, "Too long", "400", ""),
        ({"error": "Too long"}, "Too long", "", ""),
        ({"error": "Too long", "code": "invalid-argument"}, "Too long", "invalid-argument", ""),
        ({"message": "Too long"}, "Too long", "", ""),
        ({"message": "Too long", "param": "n", "code": 3051}, "Too long", "3051", "n"),
        ({"msg": "Too long", "error_code": 17}, "Too long", "17", ""),
        ({"object": "error", "message": "Too long", "type": "BadRequestError"}, "Too long", "", ""),
        ({"detail": "Too long"}, "Too long", "", ""),
        (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "Too long", "type": "v"}]},
            *("messages.0: Too long", "", "messages.0"),
        ),
        (
            {"detail": [{"msg": "Too long"}, {"loc": ["body", "n"], "msg": "no number"}]},
            *("Too long; n: no number", "", ""),
        ),
        ([{"msg": "Too long", "loc": ["n"]}], "n: Too long", "", "n"),
        (["Too long", "no"], "Too long; no", "", ""),
        ([{"error": {"message": "Too long", "code": 400}}], "Too long", "400", ""),
        ({"errors": [{"message": "Too long"}]}, "Too long", "", ""),
        ({"error": {"message": {"detail": [{"msg": "Too long"}]}}}, "Too long", "", ""),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": '{"message": "Too long"}'},
                }
            },
            *("Provider returned error: Too long", "", ""),
        ),
        ("Too long", "Too long", "", ""),
        (b"Too long\n", "Too long", "", ""),
        (b'data: {"error": {"message": "Too long"}}\n\n', "Too long", "", ""),
        (b"<html><body>Too long</body></html>", "", "", ""),
        (b"\xef\xbb\xbf" + b'{"message": "Too long"}', "Too long", "", ""),
        (b"", "", "", ""),
        (b"\xff\xfe", "\ufffd\ufffd", "", ""),
        ({"error": None}, "", "", ""),
        ({"error": {"message": 5, "param": [], "code": True}}, "", "", ""),
        (b'{"error": ' + b"[" * 20_000, '{"error": ' + "[" * 9_990, "", ""),
    ],
)
def test_the_text_is_found_in_every_shape(body: object, message: str, code: str, param: str):
    told = of_body(422, body)
    assert (told.status, told.message, told.code, told.param) == (422, message, code, param)


def test_a_page_or_a_trace_of_a_server_that_failed_is_not_told():
    for body in (b"Traceback (most recent call last)", b"<!DOCTYPE html><p>no"):
        assert of_body(500, body) == Failure(500)
    assert of_body(500, {"error": {"message": "out of memory"}}).message == "out of memory"


@pytest.mark.parametrize(
    ("status", "error", "meant"),
    [
        (400, {"message": "Incorrect API key provided: xa***"}, 401),
        (400, {"message": "API key not valid. Please pass a valid API key.", "code": 400}, 401),
        (400, {"message": "no", "code": "invalid_api_key"}, 401),
        (400, {"message": "no", "code": "context_length_exceeded"}, 400),
        (
            403,
            {"message": "Your input was flagged: the model requires moderation", "code": 403},
            400,
        ),
        (403, {"message": "no"}, 403),
        (500, {"message": "no", "code": "context_length_exceeded"}, 400),
        (500, {"message": "no", "code": "500"}, 500),
        (503, {"message": "no", "type": "invalid_request_error"}, 503),
        (429, {"message": "no", "code": "context_length_exceeded"}, 429),
    ],
)
def test_a_status_counts_unless_the_code_knows_better(status: int, error: object, meant: int):
    assert of_body(status, {"error": error}).status == meant


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (
            400,
            (
                "context_length_exceeded",
                "invalid_request_error",
                "INVALID_ARGUMENT",
                "BadRequestError",
                "string_above_max_length",
                "unsupported_parameter",
                "content_policy_violation",
                400,
                "400",
                400.0,
            ),
        ),
        (
            401,
            (
                "invalid_api_key",
                "authentication_error",
                "UNAUTHENTICATED",
                "AuthenticationError",
                401,
            ),
        ),
        (402, ("insufficient_balance", "payment_required", "billing_hard_limit_reached", 402)),
        (
            403,
            (
                "permission_denied",
                "PermissionDeniedError",
                "unsupported_country_region_territory",
                403,
            ),
        ),
        (404, ("model_not_found", "NotFoundError", 404)),
        (413, ("request_too_large", 413)),
        (422, ("UnprocessableEntityError", 422)),
        (
            429,
            (
                "rate_limit_exceeded",
                "RateLimitError",
                "RESOURCE_EXHAUSTED",
                "insufficient_quota",
                "429",
            ),
        ),
        (500, ("server_error", "InternalServerError", "api_error", 500)),
        (503, ("overloaded_error", "ServiceUnavailableError", "engine_overloaded", 503)),
        (504, ("timeout", "APITimeoutError", 504)),
        (None, (None, True, "odd", 1002, 200, [], "")),
    ],
)
def test_a_code_in_numbers_or_words_stands_for_a_status(
    status: int | None, codes: tuple[object, ...]
):
    for code in codes:
        told = failure.of_answer({"error": {"message": "no", "code": code}})
        assert told is not None
        assert told.status == status, code
        in_fields = failure.of_answer({"object": "error", "message": "no", "code": code})
        assert in_fields == told


@pytest.mark.parametrize(
    "fields",
    [
        {
            "error": {"message": "no", "code": 429},
            "choices": [{"delta": {}, "finish_reason": "error"}],
        },
        {"choices": [{"error": {"message": "no", "code": 429}, "delta": {}}]},
        {"message": "no", "code": 429},
        {"message": "no", "code": 429, "choices": None},
        {"message": "no", "code": 429, "choices": []},
        {"type": "error", "error": {"type": "rate_limit_error", "message": "no"}},
        {"type": "error", "message": "no", "code": "rate_limit_exceeded"},
        {"detail": "no", "status_code": 429},
        {"msg": "no", "status": 429},
        [{"error": {"code": 429, "message": "no", "status": "RESOURCE_EXHAUSTED"}}],
    ],
)
def test_an_error_in_an_answer_is_known_in_every_shape(fields: object):
    told = failure.of_answer(fields)
    assert told is not None
    assert (told.status, told.message) == (429, "no")


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"delta": {"content": "error"}}], "error": None},
        {"choices": [], "usage": {}, "error": {}},
        {"type": "ping"},
        {"message": "one moment", "status": "queued"},
        {"message": "one moment", "type": "internal_thought"},
        {"object": "chat.completion.chunk", "model": "m", "code": 0, "message": "ok"},
        {"message": {"role": "assistant", "content": "no"}, "code": 429},
        5,
        [],
        None,
    ],
)
def test_what_is_no_error_is_none(fields: object):
    assert failure.of_answer(fields) is None


# As their documents and servers have them, 2026.
REAL: list[tuple[str, object, int | None, str]] = [
    (
        "Text Generation Inference",
        {"error": "Input validation error: `inputs` must be shorter", "error_type": "validation"},
        *(422, "Input validation error: `inputs` must be shorter"),
    ),
    (
        "TGI, overloaded",
        {"error": "Model is overloaded", "error_type": "overloaded"},
        503,
        "Model is overloaded",
    ),
    (
        "vLLM",
        {
            "object": "error",
            "message": "too long",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        *(400, "too long"),
    ),
    (
        "llama.cpp",
        {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}},
        *(400, "too long"),
    ),
    ("Ollama", {"error": "model 'x' not found"}, None, "model 'x' not found"),
    (
        "Anthropic",
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        503,
        "Overloaded",
    ),
    (
        "Gemini",
        [
            {
                "error": {
                    "code": 429,
                    "message": "Please retry in 34.07s.",
                    "status": "RESOURCE_EXHAUSTED",
                }
            }
        ],
        *(429, "Please retry in 34.07s."),
    ),
    (
        "Mistral",
        {
            "object": "error",
            "message": {"detail": [{"loc": ["body", "x"], "msg": "Extra inputs"}]},
            "type": "invalid_request_error",
        },
        *(400, "x: Extra inputs"),
    ),
    (
        "xAI",
        {"code": "Client specified an invalid argument", "error": "no such field"},
        400,
        "no such field",
    ),
    (
        "OpenRouter",
        {
            "id": "gen-1",
            "error": {"code": "server_error", "message": "Provider disconnected"},
            "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
        },
        *(500, "Provider disconnected"),
    ),
    (
        "Cerebras",
        {
            "message": "slow down",
            "type": "too_many_requests_error",
            "param": "quota",
            "code": "token_quota_exceeded",
        },
        429,
        "slow down",
    ),
    ("Bedrock", {"__type": "ThrottlingException", "message": "slow down"}, 429, "slow down"),
    (
        "Azure OpenAI",
        {"error": {"code": "429", "message": "Please retry after 20 seconds."}},
        *(429, "Please retry after 20 seconds."),
    ),
]


@pytest.mark.parametrize(
    ("body", "status", "message"), [each[1:] for each in REAL], ids=[each[0] for each in REAL]
)
def test_real_errors_in_an_answer_are_known(body: object, status: int | None, message: str):
    told = failure.of_answer(body)
    assert told is not None
    assert (told.status, told.message) == (status, message)
    if "retry" in message:
        assert told.retry_after in (34.07, 20)


def test_an_event_that_is_called_an_error_is_one():
    for value in ({"message": "no"}, "no", {"detail": "no"}):
        told = failure.of_answer(value, b"error")
        assert told is not None
        assert told.message == "no"


@pytest.mark.parametrize(
    ("status", "own", "kind", "reason", "message", "code"),
    [
        (400, None, errors.FailedPrecondition, "PROVIDER_REFUSED", "p: no", "c"),
        (413, None, errors.FailedPrecondition, "PROVIDER_REFUSED", "p: no", "c"),
        (
            401,
            None,
            errors.Unavailable,
            "PROVIDER_CREDENTIALS",
            "p refused this installation's key",
            None,
        ),
        (
            402,
            None,
            errors.Unavailable,
            "PROVIDER_CREDENTIALS",
            "p refused this installation's key",
            None,
        ),
        (
            403,
            None,
            errors.Unavailable,
            "PROVIDER_CREDENTIALS",
            "p refused this installation's key",
            None,
        ),
        (
            401,
            "sk-x",
            errors.Unauthenticated,
            "PROVIDER_KEY_REFUSED",
            "p refused this key: no",
            "c",
        ),
        (
            403,
            "sk-x",
            errors.Unauthenticated,
            "PROVIDER_KEY_REFUSED",
            "p refused this key: no",
            "c",
        ),
        (
            402,
            "sk-x",
            QuotaSpent,
            "PROVIDER_RATE_LIMITED",
            "p wants this key's account to be paid: no",
            "c",
        ),
        (404, None, errors.NotFound, "PROVIDER_MODEL_NOT_FOUND", "p: no", "c"),
        (429, None, RateLimited, "PROVIDER_RATE_LIMITED", "p is rate limiting: no", "c"),
        (
            500,
            None,
            errors.Unavailable,
            "PROVIDER_UNAVAILABLE",
            "p failed with status 500: no",
            "c",
        ),
        (
            418,
            None,
            errors.Unavailable,
            "PROVIDER_UNAVAILABLE",
            "p failed with status 418: no",
            "c",
        ),
        (
            None,
            None,
            errors.Unavailable,
            "PROVIDER_BROKE_OFF",
            "p broke off before the end: no",
            "c",
        ),
    ],
)
def test_whose_fault_it_is_says_the_status(status, own, kind, reason: str, message: str, code):
    error = FAILURES.of(Failure(status, "no", "c", "n"), own)
    assert isinstance(error, kind)
    assert (error.reason, error.message) == (reason, message)
    field = None if code is None else "n"
    named = {"provider_code": code, "provider_param": field}
    told = {name: value for name, value in named.items() if value is not None}
    assert error.metadata == {"provider": "p"} | told


def test_a_model_that_is_not_there_and_a_quota_have_the_codes_that_clients_know():
    assert FAILURES.of(Failure(404)).metadata["provider_code"] == "model_not_found"
    assert FAILURES.of(Failure(402), "sk-x").metadata["provider_code"] == "insufficient_quota"
    spent = FAILURES.of(Failure(429, "no", "insufficient_quota"))
    assert isinstance(spent, QuotaSpent)
    assert not isinstance(spent, Declined)  # To ask again is no use.
    assert spent.retry_after is None
    assert FAILURES.of(Failure(429, retry_after=7.5)).retry_after == 7.5
    assert FAILURES.of(Failure(429)).retry_after == 1


@pytest.mark.parametrize(
    "secret",
    [
        KEY,
        "sk-the-callers",
        "sk-proj-Abc123_def456",
        "gsk_0123456789abcdef",
        "hf_AbCdEfGhIj",
        "AIzaSyA-0123456789abc",
        "Bearer 0123-4567",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln",
        "org-AbCdEf123456",
        "api_key=hunter2",
        "0123456789abcdef0123456789abcdef",
        "Incorrect key sk-ab****wxYZ",
    ],
)
def test_what_looks_like_a_key_is_not_told(secret: str):
    hidden = secret.split()[-1].rpartition("=")[2]
    for told in (
        Failure(400, f"no {secret}, see below"),
        Failure(400, "no", secret),
        Failure(429, "no", "c", secret),
    ):
        error = FAILURES.of(told, "sk-the-callers")
        assert hidden not in error.message
        assert hidden not in str(error.metadata)
        assert "no" in error.message


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens (messages[3].content)",
        "model accounts/fireworks/models/llama-v3p1-405b-instruct not found",
        "see https://platform.openai.com/docs/guides/error-codes/api-errors",
        "request 2f1d9c4e-0f3a-4c8b-9a43-0123456789ab",
    ],
)
def test_what_is_no_key_is_told(text: str):
    assert FAILURES.of(Failure(400, text)).message == f"p: {text}"


def test_a_text_is_one_line_and_bounded():
    assert FAILURES.of(Failure(400, "a\n b\x00\tc")).message == "p: a b c"
    assert len(FAILURES.of(Failure(400, "é" * 5_000, "c" * 500)).message) == 303


@pytest.mark.parametrize("text", ["sk-" * 80_000, "a=" * 120_000, "try again in 1." * 20_000])
def test_a_text_that_is_made_to_be_slow_is_not(text: str):
    began = time.thread_time()
    FAILURES.of(of_body(400, {"error": {"message": text, "code": text, "param": text}}))
    assert time.thread_time() - began < 0.1


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["error", "message", "code", "detail", "choices", "loc", "type"]),
                inner,
            )
        ),
    )
)
def test_no_body_breaks_the_reading(body: object):
    FAILURES.of(of_body(400, body))
    told = failure.of_answer(body)
    assert told is None or FAILURES.of(told).reason


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After": "-3"}, 0),
        ({"Retry-After": "99999999"}, 3600),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "1m30s"}, 90),
        ({"retry-after-ms": "1500", "retry-after": "7"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"x-ratelimit-reset-requests": "1m30s"}, 90),
        ({"x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "2m59.56s"}, 179.56),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-reset-tokens": "3s"}, 3),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "3s",
                "x-ratelimit-remaining-tokens": "500",
            },
            360,
        ),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None):
    assert retry_after.of_headers(headers, is_limited=True) == seconds


def test_a_date_or_a_time_says_how_long_to_wait():
    then = datetime.now(UTC) + timedelta(seconds=100)
    for headers in (
        {"Retry-After": format_datetime(then, usegmt=True)},
        {"X-RateLimit-Reset": str(int(then.timestamp()))},
        {"X-RateLimit-Reset": str(int(then.timestamp() * 1000))},
    ):
        wait = retry_after.of_headers(headers, is_limited=True)
        assert wait is not None
        assert 80 < wait <= 100


def test_a_limit_that_is_far_is_no_reason_to_wait_for_who_merely_failed():
    headers = {"x-ratelimit-reset-requests": "6m0s"}
    assert retry_after.of_headers(headers, is_limited=False) is None
    assert retry_after.of_headers(headers | {"Retry-After": "2"}, is_limited=False) == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Rate limit reached. Please try again in 6.5s. Visit", 6.5),
        ("Please try again in 1m2.5s.", 62.5),
        ("Try again in 20ms", 0.02),
        ("Please retry after 30 s", 30),
        ("try again later", None),
    ],
)
def test_words_say_how_long_to_wait_too(text: str, seconds: float | None):
    assert retry_after.of_text(text) == seconds


@given(st.text(max_size=200))
def test_no_header_breaks_the_reading(value: str):
    wait = retry_after.of_headers(
        {"Retry-After": value, "x-ratelimit-reset": value}, is_limited=True
    )
    assert wait is None or 0 <= wait <= retry_after.MAX_WAIT_S
