"""What is said to a model: how much of it, and how it is cleaned."""

import unicodedata
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.chat.domain.conversation import Ask, Limits, Turn, title_of

LIMITS = Limits(message=10, history=3)
TEXT = st.text(max_size=200)


def ask(message: str = "", store: bool | None = None, chat_id: UUID | None = None) -> Ask:
    return Ask(message, (), "", chat_id, "", None, None, store)


def test_a_text_may_be_as_long_as_the_limit_in_characters_of_any_width():
    assert LIMITS.cleaned("é" * 10, "message") == "é" * 10
    assert LIMITS.cleaned("🙂" * 10, "message") == "🙂" * 10
    with pytest.raises(errors.InvalidRequest) as refused:
        LIMITS.cleaned("🙂" * 11, "message")
    assert refused.value.reason == "MESSAGE_TOO_LONG"
    assert refused.value.message == "message: 11 characters; 10 are allowed"


def test_what_is_cut_away_counts_too():
    with pytest.raises(errors.InvalidRequest):
        LIMITS.cleaned("\0" * 11, "message")


@given(TEXT)
def test_only_tabs_and_ends_of_lines_are_left_of_control_characters(text: str):
    cleaned = Limits(1_000, 1).cleaned(text, "message")
    assert not [c for c in cleaned if unicodedata.category(c) == "Cc" and c not in "\t\r\n"]
    assert cleaned == "".join(c for c in text if unicodedata.category(c) != "Cc" or c in "\t\r\n")
    assert Limits(1_000, 1).cleaned(cleaned, "message") == cleaned


@pytest.mark.parametrize("text", ["a\r\nb", "\r\n", "a\rb", "a\n\rb", "\ta\r"])
def test_the_ends_of_lines_stay_as_they_are(text: str):
    assert LIMITS.cleaned(text, "message") == text


def test_turns_are_cleaned_and_keep_who_spoke():
    turns = (Turn("system", "a\x00"), Turn("user", "b\x1b"))
    assert LIMITS.cleaned_turns(turns, "messages") == (Turn("system", "a"), Turn("user", "b"))


def test_too_many_turns_and_one_too_long_are_named():
    with pytest.raises(errors.InvalidRequest) as many:
        LIMITS.cleaned_turns((Turn("user", "x"),) * 4, "messages")
    with pytest.raises(errors.InvalidRequest) as long:
        LIMITS.cleaned_turns((Turn("user", "x"), Turn("user", "x" * 11)), "messages")
    assert [wrong.field for wrong in many.value.violations] == ["messages"]
    assert [wrong.field for wrong in long.value.violations] == ["messages[1].content"]
    assert many.value.reason == long.value.reason == "MESSAGE_TOO_LONG"
    assert len(LIMITS.cleaned_turns((Turn("user", "x"),) * 3, "messages")) == 3


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("Hello", "Hello"),
        ("  Hello \nmore", "Hello"),
        ("\n\n second line", "second line"),
        ("Hello\r\nmore", "Hello"),
        ("Hello\rmore", "Hello"),
        ("a\tb", "a b"),
        ("", "New chat"),
        (" \n ", "New chat"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, " ".join(["word"] * 11) + "…"),
    ],
)
def test_a_title_is_the_start_of_the_first_line(message: str, title: str):
    assert title_of(message) == title


@given(TEXT)
def test_a_title_is_one_short_line(message: str):
    title = title_of(message)
    assert 1 <= len(title) <= 60
    assert "\n" not in title
    assert "\r" not in title
    assert "\t" not in title


@pytest.mark.parametrize("store", [None, True, False])
def test_a_message_is_stored_and_turns_are_not_unless_told(store: bool | None):
    assert ask("Hi", store).stored is (store is not False)
    assert ask("", store).stored is (store is True)
