"""Nobody is judged before a few looks in a row have gone well."""

from datetime import UTC, datetime, timedelta

import pytest

from mesh.patience import Patience

START = datetime(2026, 1, 1, tzinfo=UTC)


def looked(*seconds: float) -> Patience:
    """One that looked at these times."""
    patience = Patience(needed=3, longest=timedelta(seconds=10))
    for each in seconds:
        with patience.look(START + timedelta(seconds=each)):
            pass
    return patience


def test_it_takes_as_many_looks_as_are_needed():
    assert not looked(0, 5).is_over
    assert looked(0, 5, 10).is_over
    assert looked(0, 10, 20, 30).is_over


def test_a_gap_begins_anew():
    assert not looked(0, 5, 10, 21).is_over
    assert looked(0, 5, 10, 21, 26, 31).is_over


def test_a_look_that_fails_begins_anew():
    patience = looked(0, 5, 10)
    with pytest.raises(OSError, match="away"), patience.look(START + timedelta(seconds=15)):
        raise OSError("away")
    assert not patience.is_over
    for seconds in (20, 25):
        with patience.look(START + timedelta(seconds=seconds)):
            pass
        assert not patience.is_over
