"""What using a refresh token means, and what attempts are counted under."""

from datetime import UTC, datetime, timedelta

import pytest

from services.auth.domain.attempts import Limits
from services.auth.domain.sessions import Refresh, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "current", "seconds_ago", "expected"),
    [
        (0, 0, 0, Refresh.NEXT),
        (5, 5, 86_400, Refresh.NEXT),
        (4, 5, 10, Refresh.AGAIN),
        (4, 5, 10.001, Refresh.REUSED),
        (3, 5, 0, Refresh.REUSED),
        # One the database has not come to: it was set back to an earlier state.
        (6, 5, 0, Refresh.REUSED),
    ],
)
def test_a_spent_token_is_good_for_the_grace_alone(
    given: int, current: int, seconds_ago: float, expected: Refresh
) -> None:
    assert judge(given, current, NOW - timedelta(seconds=seconds_ago), NOW) is expected


def limits() -> Limits:
    return Limits(
        "a secret of this test",
        per_account=10,
        per_address=100,
        of_strangers=100,
        registrations=100,
    )


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:2:3", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("no address", "no address", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(
    one: str, other: str, *, same: bool
) -> None:
    of = limits()
    assert (of.address(one) == of.address(other)) is same
    assert (of.login("ada", one) == of.login("ada", other)) is same
    assert (of.device("ada", one) == of.device("ada", other)) is same
    assert (of.registrations(one) == of.registrations(other)) is same


def test_a_call_from_within_the_mesh_has_no_address_to_count() -> None:
    assert limits().address("") is None


def test_an_account_called_like_an_address_is_another_counter() -> None:
    name, elsewhere = "192.0.2.1", "198.51.100.1"
    counters = [
        limits().login(name, elsewhere),
        limits().account(name),
        limits().session(name),
        limits().address(name),
        limits().registrations(name),
    ]

    assert len({counter.key for counter in counters if counter is not None}) == len(counters)
