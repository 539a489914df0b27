"""Limits of time in tests grow with what the machine takes for the same work, and no further."""

import pytest

from tests import patience
from tests.support import eventually


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch):
    """Sets how long the work takes."""

    def takes(seconds: float) -> None:
        monkeypatch.setattr(patience, "_measured_at", -1e9)
        monkeypatch.setattr(patience, "_work", lambda: seconds)

    return takes


@pytest.mark.parametrize(
    ("taken", "factor"), [(0.001, 1), (0.016, 1), (0.048, 3), (100, patience.MAX_FACTOR)]
)
def test_a_limit_is_stretched_by_how_slow_the_machine_is(measured, taken, factor):
    measured(taken)
    assert patience.patient(2) == pytest.approx(2 * factor)


def test_a_promised_time_stays_what_it_is_on_a_machine_that_is_idle(measured):
    measured(patience.REFERENCE_S)
    assert patience.is_over(0.26, 0.25)
    measured(2 * patience.REFERENCE_S)
    assert not patience.is_over(0.26, 0.25)
    assert patience.is_over(0.51, 0.25)


async def test_waiting_ends_all_the_same(measured):
    measured(patience.REFERENCE_S)
    with pytest.raises(AssertionError, match="still None after"):
        await eventually(lambda: None, within=0.1)
