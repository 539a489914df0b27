"""What is read of a request in OpenAI's format."""

import pytest

from mesh import errors
from services.chat.domain import completion
from services.chat.domain.models import OutputLimit


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "m", "messages": [{}], "stream_options": {"x": "\xff"}, "stream": true}',
        b'{"model": "m", "messages": [{}], "x": "\xed\xa0\x80"}',
    ],
    ids=["in a message", "in an option", "a surrogate"],
)
def test_what_is_no_text_goes_to_no_provider(body: bytes):
    with pytest.raises(errors.InvalidRequest) as refused:
        completion.read(body)
    assert refused.value.reason == "MALFORMED_REQUEST"


@pytest.mark.parametrize("n", [b'"5"', b"0", b"129", b"2147483648", b"1.5"])
def test_a_number_of_choices_that_could_be_read_otherwise_goes_to_no_provider(n: bytes):
    with pytest.raises(errors.InvalidRequest) as refused:
        completion.read(b'{"model": "m", "messages": [{}], "n": ' + n + b"}")
    assert refused.value.violations[0].field == "n"


@pytest.mark.parametrize("n", [b"1", b"128", b"null"])
def test_a_number_of_choices_goes_to_the_provider_as_it_came(n: bytes):
    asked = completion.read(b'{"model": "m", "messages": [{}], "n": ' + n + b"}")
    assert bytes(asked.fields["n"]) == n


def test_what_is_nested_too_deep_is_malformed():
    body = b'{"model": "m", "messages": [' + b"[" * 100_000 + b"]" * 100_000 + b"]}"
    with pytest.raises(errors.InvalidRequest) as refused:
        completion.read(body)
    assert refused.value.reason == "MALFORMED_REQUEST"
    with pytest.raises(errors.InvalidRequest):
        completion.read(body)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (b'"max_tokens": 5', 5),
        (b'"max_tokens": 5, "max_completion_tokens": 9', 9),
        (b'"max_tokens": 5, "max_completion_tokens": null', 5),
        (b'"max_tokens": null, "max_completion_tokens": null', 1_000),
        (b'"max_tokens": 5000', 1_000),
        # A provider may go by what is no limit to us.
        (b'"max_completion_tokens": 5, "max_tokens": 1e400', 1_000),
        (b'"max_completion_tokens": 5, "max_tokens": 2000000000000', 1_000),
        (b'"max_completion_tokens": 5, "max_tokens": 100.0', 1_000),
        (b'"max_completion_tokens": 5, "max_tokens": "100"', 1_000),
        (b'"max_completion_tokens": 5, "max_tokens": -1', 1_000),
        (b'"max_completion_tokens": 5, "n_predict": 50', 50),
    ],
)
def test_a_request_may_have_all_that_any_of_its_limits_allows(limits: bytes, limit: int):
    asked = completion.read(b'{"model": "m", "messages": [{}], ' + limits + b"}")
    assert asked.limit(1_000) == limit


@pytest.mark.parametrize("odd", [b"1e400", b'"100"', b"-1", b"2000000000000"])
def test_with_a_limit_of_ours_what_is_none_goes(odd: bytes):
    body = b'{"model": "m", "messages": [{}], "max_completion_tokens": 5, "max_tokens": ' + odd
    asked = completion.read(body + b"}").limited(1_000, OutputLimit.MAX_TOKENS)
    assert "max_tokens" not in asked.fields
    assert asked.limit(1_000) == 5
