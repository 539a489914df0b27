"""What generations cost."""

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.usage.domain import records as domain

TOKENS = st.integers(0, 2**31 - 1)
PRICES = st.integers(0, 2**63 - 1)


@given(TOKENS, TOKENS, PRICES, PRICES)
def test_a_cost_is_the_exact_one_rounded_half_up_once(prompt, completion, reading, writing):
    exact = Fraction(prompt * reading, 10**6) + Fraction(completion * writing, 10**6)

    assert domain.cost(prompt, completion, reading, writing) == floor(exact + Fraction(1, 2))


@pytest.mark.parametrize(
    ("prompt", "completion", "reading", "writing", "nano_usd"),
    [
        (0, 0, 150_000_000, 600_000_000, 0),
        (1_000_000, 0, 150_000_000, 600_000_000, 150_000_000),
        (12, 34, 150_000_000, 600_000_000, 22_200),
        (1, 0, 500_000, 0, 1),
        (1, 0, 499_999, 0, 0),
        (1, 1, 250_000, 250_000, 1),
    ],
    ids=["nothing", "a million", "both", "half", "below half", "two quarters"],
)
def test_costs_of_known_cases(prompt, completion, reading, writing, nano_usd):
    assert domain.cost(prompt, completion, reading, writing) == nano_usd


@given(st.integers(0, 10**30))
def test_dollars_are_the_nearest_double(nano_usd):
    assert domain.usd(nano_usd) == float(Fraction(nano_usd, 10**9))
