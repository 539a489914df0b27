"""Calls in flight are shared: one caller leaves room, several leave less each, and nobody is shut out."""

from contextlib import ExitStack

import pytest

from mesh import errors
from mesh.calls.shares import Shares


def fill(shares: Shares, caller: str, stack: ExitStack) -> int:
    """How many calls of `caller` are let in until one is refused; they stay."""
    for count in range(10_000):
        try:
            stack.enter_context(shares.one_more(caller))
        except errors.Unavailable:
            return count
    raise AssertionError("nobody was refused")


def test_one_caller_has_its_share_and_no_more():
    with ExitStack() as stack:
        assert fill(Shares(1024, 0.25), "one", stack) == 256


@pytest.mark.parametrize(("share", "greedy"), [(0.01, 50), (0.25, 16), (0.5, 8)])
def test_after_many_have_filled_their_shares_the_next_one_is_let_in(share: float, greedy: int):
    shares = Shares(1024, share)
    with ExitStack() as stack:
        had = [fill(shares, str(caller), stack) for caller in range(greedy)]
        assert had[0] == pytest.approx(1024 * share, abs=1)
        assert min(had) >= 1
        with shares.one_more("a newcomer"):
            pass


def test_who_is_refused_is_told_why_and_when_to_come_again():
    with ExitStack() as stack:
        shares = Shares(16, 0.25)
        fill(shares, "one", stack)
        with pytest.raises(errors.Unavailable, match="4 calls of this caller") as refused:
            stack.enter_context(shares.one_more("one"))
    assert (refused.value.reason, refused.value.retry_after) == ("OVERLOADED", 1)


def test_what_ends_is_free_again():
    shares = Shares(16, 0.25)
    with ExitStack() as stack:
        assert fill(shares, "one", stack) == 4
    with ExitStack() as stack:
        assert fill(shares, "one", stack) == 4


def test_a_call_that_fails_is_free_again():
    shares = Shares(16, 0.25)
    for _ in range(50):
        with pytest.raises(KeyError), shares.one_more("one"):
            raise KeyError
    with ExitStack() as stack:
        assert fill(shares, "one", stack) == 4


def test_when_all_is_taken_newcomers_are_refused():
    shares = Shares(16, 0.25)
    with ExitStack() as stack:
        for caller in range(16):
            stack.enter_context(shares.one_more(str(caller)))
        with pytest.raises(errors.Unavailable):
            stack.enter_context(shares.one_more("one too many"))
