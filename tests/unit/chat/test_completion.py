"""What is read of a request in OpenAI's format."""

import pytest

from mesh import errors
from services.chat.domain import completion


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
    assert completion.model_named(body) == ""
