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
