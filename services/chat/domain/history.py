"""A conversation that outgrows its model: its oldest turns are left out."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.chat.domain.conversation import SYSTEM_ROLES, Turn
from services.chat.domain.prompt_size import bound_of_turns, tokens_of_turn

_LEFT_OUT = "messages-left-out"
_IN_A_WARNING = re.compile(rf"{_LEFT_OUT}=(\d+)")
# What an estimate may be short of (domain/token_estimate.py).
MARGIN = 1.2
# What a reply has in any case: an estimate may be wrong, and a provider refuses what is too much.
_MIN_REPLY_TOKENS = 256
# Of a window a reply has at most so much while there is history to be read.
_MAX_SHARE_OF_REPLY = 0.5


@dataclass(frozen=True, slots=True)
class ContextLength:
    """Tokens that a model reads and writes together, and that a prompt has; None where not said."""

    window: int | None
    counted: int | None


@dataclass(frozen=True, slots=True)
class Fit:
    """What is left of a conversation for a window, and how many tokens may be written then."""

    turns: tuple[Turn, ...]
    max_tokens: int


def fit(turns: tuple[Turn, ...], max_tokens: int, window: int, margin: float = MARGIN) -> Fit:
    """`turns` as far as they go into `window` tokens, with a reply of `max_tokens` or half of them.

    What is said by the system stays, and so does the last turn, however long it is: whether that
    is too long is its provider's to say. Then the newest stay. A reply of the model does not
    stay without what it replied to. A turn is taken for `margin` times its estimate.
    """
    reply = min(max_tokens, int(window * _MAX_SHARE_OF_REPLY))
    bound = bound_of_turns(turns)
    if bound + max_tokens <= window:
        return Fit(turns, max_tokens)
    sizes = [tokens_of_turn(turn) * margin for turn in turns]
    last = len(turns) - 1
    stays = [at == last or turn.role in SYSTEM_ROLES for at, turn in enumerate(turns)]
    used = sum(size for size, kept in zip(sizes, stays, strict=True) if kept)
    first = _first(turns, sizes, window - reply - used)
    kept = [at for at in range(len(turns)) if stays[at] or at >= first]
    left = window - math.ceil(sum(sizes[at] for at in kept))
    return Fit(tuple(turns[at] for at in kept), min(max_tokens, max(left, _MIN_REPLY_TOKENS)))


def warning_of(left_out: int) -> str:
    """What the reader of a reply is told of turns that were left out; "" for none."""
    return f"{_LEFT_OUT}={left_out}" if left_out else ""


def left_out_in(warning: str) -> int:
    """How many turns were left out, as a warning says."""
    found = _IN_A_WARNING.search(warning)
    return int(found[1]) if found else 0


def _first(turns: Sequence[Turn], sizes: Sequence[float], room: float) -> int:
    """The oldest turn for which there is room, with all that came after it."""
    last = len(turns) - 1
    first = last
    for at in range(last - 1, -1, -1):
        if turns[at].role in SYSTEM_ROLES:
            continue
        room -= sizes[at]
        if room < 0:
            break
        first = at
    while first < last and turns[first].role != "user":
        first += 1
    return first
