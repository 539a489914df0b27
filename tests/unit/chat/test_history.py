"""Which turns of a conversation go into a window, and what providers say of one that is too long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.chat.domain.conversation import SYSTEM_ROLES, Turn
from services.chat.domain.history import MARGIN, fit, left_out_in, warning_of
from services.chat.domain.prompt_size import tokens_of_turn
from services.chat.providers import context_length

# 100 tokens by the estimate, and 4 around them.
LONG = "word " * 100


def turns(*roles: str) -> tuple[Turn, ...]:
    return tuple(Turn(role, f"{at} {LONG}") for at, role in enumerate(roles))


def kept(said: tuple[Turn, ...], window: int, reply: int = 10) -> list[int]:
    """The places of the turns that stay."""
    return [int(turn.content.split()[0]) for turn in fit(said, reply, window).turns]


CHAT = turns("system", "user", "assistant", "user", "assistant", "user")


@pytest.mark.parametrize(
    ("window", "stay"),
    [
        (100_000, [0, 1, 2, 3, 4, 5]),
        (780, [0, 1, 2, 3, 4, 5]),
        (660, [0, 3, 4, 5]),  # There is room for reply 2, but not for its question.
        (530, [0, 3, 4, 5]),
        (400, [0, 5]),  # The same of reply 4.
        (280, [0, 5]),
        (1, [0, 5]),  # What is last is sent in any case, and what the system says.
    ],
)
def test_the_oldest_turns_give_way_and_no_reply_stays_without_its_question(
    window: int, stay: list[int]
):
    assert kept(CHAT, window) == stay


def test_what_the_system_says_in_between_stays():
    said = turns("user", "developer", "assistant", "system", "user")
    assert kept(said, 420) == [1, 3, 4]


def test_a_conversation_that_ends_with_a_reply_keeps_it():
    assert kept(turns("user", "assistant"), 130) == [1]


@pytest.mark.parametrize(
    ("reply", "window", "may_write"),
    [
        (100, 100_000, 100),
        (8_192, 8_192, 7_439),  # A model whose replies may take all of its window.
        (500, 1_400, 500),
        (8_192, 300, 256),
    ],
)
def test_a_reply_may_have_what_is_left_of_the_window(reply: int, window: int, may_write: int):
    made = fit(CHAT, reply, window)
    assert made.max_tokens == pytest.approx(may_write, abs=30)


ROLES = st.sampled_from(["system", "developer", "user", "assistant"])
SAID = st.lists(st.builds(Turn, ROLES, st.text(max_size=300)), min_size=1, max_size=30).map(tuple)


@given(SAID, st.integers(1, 5_000), st.integers(1, 5_000))
def test_what_stays_is_in_order_and_fits_or_can_not_be_less(said, reply, window):
    made = fit(said, reply, window)
    rest = iter(said)
    assert all(turn in rest for turn in made.turns)
    assert made.turns[-1] is said[-1]
    system = [turn for turn in said if turn.role in SYSTEM_ROLES]
    assert [turn for turn in made.turns if turn.role in SYSTEM_ROLES][: len(system)] == system
    must = [t for at, t in enumerate(said) if t.role in SYSTEM_ROLES or at == len(said) - 1]
    tokens = sum(tokens_of_turn(turn) for turn in made.turns) * MARGIN
    assert len(made.turns) == len(must) or tokens <= window
    assert 1 <= made.max_tokens <= reply


def test_what_was_left_out_is_a_warning_that_can_be_read():
    assert (warning_of(0), warning_of(12)) == ("", "messages-left-out=12")
    assert left_out_in("soft-budget-exceeded, messages-left-out=12") == 12
    assert left_out_in("soft-budget-exceeded") == left_out_in("") == 0


TOLD = [
    (
        "This model's maximum context length is 4097 tokens. However, your messages resulted in"
        " 5000 tokens. Please reduce the length of the messages.",
        (4097, 5000),
    ),
    (
        "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens"
        " (8500 in the messages, 500 in the completion).",
        (8192, 8500),
    ),
    (
        "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context"
        " length is 4096 tokens and your request has 100 input tokens (8192 > 4096 - 100).",
        (4096, 100),
    ),
    (
        "This endpoint's maximum context length is 131072 tokens. However, you requested about"
        " 140000 tokens (139000 of text input, 1000 in the output).",
        (131072, 139000),
    ),
    (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum"
        " context length",
        (32768, 40000),
    ),
    (
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        (4096, 5000),
    ),
    ("prompt is too long: 210000 tokens > 200000 maximum", (200000, 210000)),
    (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000"
        " `inputs` tokens and 500 `max_new_tokens`",
        (4096, 4000),
    ),
    (
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        (1048576, 1200000),
    ),
    (
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        (131072, 200000),
    ),
    (
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is"
        " loaded with context length of only 4096 tokens",
        (4096, 5000),
    ),
    ("Please reduce the length of the messages or completion.", (None, None)),
]


@pytest.mark.parametrize(("text", "numbers"), TOLD)
def test_what_providers_say_of_a_window_is_read(text: str, numbers: tuple[int, int]):
    length = context_length.told(errors.FailedPrecondition("PROVIDER_REFUSED", f"p: {text}"))
    assert length is not None
    assert (length.window, length.counted) == numbers


@pytest.mark.parametrize(
    "text", ["max_tokens is too large: 100", "temperature must be between 0 and 2", "no context"]
)
def test_other_refusals_are_not_about_a_window(text: str):
    assert context_length.told(errors.FailedPrecondition("PROVIDER_REFUSED", text)) is None
    other = errors.Unavailable("PROVIDER_UNAVAILABLE", "maximum context length is 10")
    assert context_length.told(other) is None


def test_a_code_says_it_too():
    coded = {"provider_code": "context_length_exceeded"}
    error = errors.FailedPrecondition("PROVIDER_REFUSED", "too much", metadata=coded)
    assert context_length.told(error) is not None
