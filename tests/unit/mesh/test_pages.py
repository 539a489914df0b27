"""Page tokens: read back by the list that wrote them, by nobody else, and never changed."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors, pages
from mesh.pages import PageTokens

TOKENS = PageTokens("a secret that is long enough, 32 or more")
VALUES = st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=50), st.booleans(), st.none())


@given(st.text(max_size=50).filter(lambda name: "\0" not in name), st.lists(VALUES, max_size=4))
def test_a_place_comes_back_as_it_was(name: str, place: list[object]):
    token = TOKENS.write(name, place)
    assert TOKENS.read(name, token) == place
    assert token.isascii()
    assert "=" not in token


def test_no_token_is_the_first_page():
    assert TOKENS.read("items/1", "") is None


def test_a_token_of_another_list_or_another_secret_is_refused():
    token = TOKENS.write("items/1", [7])
    for reader, name in (
        (TOKENS, "items/2"),
        (TOKENS, "items/"),
        (PageTokens("another secret that is long enough, too"), "items/1"),
    ):
        with pytest.raises(errors.InvalidRequest) as refused:
            reader.read(name, token)
        assert refused.value.reason == "INVALID_PAGE_TOKEN"
        assert [wrong.field for wrong in refused.value.violations] == ["page_token"]


def test_a_token_is_refused_whichever_bit_of_it_is_changed():
    raw = base64.urlsafe_b64decode(TOKENS.write("items/1", [7]) + "==")
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(errors.InvalidRequest):
            TOKENS.read("items/1", base64.urlsafe_b64encode(changed).decode().rstrip("="))


def test_a_token_is_refused_wherever_it_is_cut():
    token = TOKENS.write("items/1", [123456])
    for end in range(1, len(token)):
        with pytest.raises(errors.InvalidRequest):
            TOKENS.read("items/1", token[:end])


@given(st.text(min_size=1, max_size=100))
def test_any_text_is_refused_and_breaks_nothing(text: str):
    with pytest.raises(errors.InvalidRequest):
        TOKENS.read("items/1", text)


def test_a_token_tells_no_signature_of_a_longer_name():
    token = TOKENS.write("a", [1])
    with pytest.raises(errors.InvalidRequest):
        TOKENS.read("a\0[1]", token)


@pytest.mark.parametrize(
    ("wanted", "given"), [(0, 50), (1, 1), (50, 50), (200, 200), (201, 200), (2**31 - 1, 200)]
)
def test_a_page_has_50_unless_told_and_200_at_most(wanted: int, given: int):
    assert pages.size(wanted) == given
