"""The key of a call is in nothing that its provider answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat.providers.redaction import Redactor

KEY = "sk-a-key-of-this-installation"


def fed(key: str, *pieces: bytes) -> bytes:
    redactor = Redactor(key)
    return b"".join(map(redactor.feed, pieces)) + redactor.end()


@given(
    st.integers(0, len(KEY)), st.integers(0, len(KEY)), st.sampled_from([b"", b"\n", b"s", b"sk-"])
)
def test_a_key_is_hidden_however_it_is_cut(first: int, second: int, around: bytes):
    told = around + KEY.encode() + around
    one, two = sorted((first + len(around), second))
    assert fed(KEY, told[:one], told[one:two], told[two:]) == around + "…".encode() + around


@given(st.lists(st.sampled_from([b"sk-", b"a-key-of", b"\n", b"other", b"sk-a-key-of-this-"])))
def test_all_else_stays(pieces: list[bytes]):
    assert fed(KEY, *pieces) == b"".join(pieces)


@pytest.mark.parametrize("key", ["", "none", "EMPTY"])
def test_a_word_for_a_key_is_no_secret(key: str):
    assert fed(key, b"none of it is EMPTY") == b"none of it is EMPTY"
