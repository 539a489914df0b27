"""What a key may do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from services.keys.domain import Key, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
KEY = Key(UUID(int=1), UUID(int=2), "test", "ai_abcde", b"digest", 60, (), None, NOW)


@pytest.mark.parametrize(
    ("revoked_at", "expires_at", "standing"),
    [
        (None, None, Verdict.ALLOWED),
        (None, NOW + MOMENT, Verdict.ALLOWED),
        (None, NOW, Verdict.EXPIRED),
        (NOW, None, Verdict.REVOKED),
        (NOW, NOW - MOMENT, Verdict.REVOKED),
    ],
    ids=["good", "still good", "just expired", "revoked", "revoked and expired"],
)
def test_a_key_stands_by_its_times(revoked_at, expires_at, standing):
    key = replace(KEY, revoked_at=revoked_at, expires_at=expires_at)

    assert key.standing(NOW) is standing


@pytest.mark.parametrize(
    ("allowed", "names", "may"),
    [
        ((), ("gpt-4o", "smart"), True),
        (("gpt-4o",), ("gpt-4o", "smart"), True),
        (("smart",), ("gpt-4o", "smart"), True),
        (("fast",), ("gpt-4o", "smart"), False),
        (("gpt-4o-mini",), ("gpt-4o",), False),
    ],
    ids=["any", "by id", "by alias", "another", "longer name"],
)
def test_a_key_may_call_the_models_it_lists_by_id_or_alias(allowed, names, may):
    assert replace(KEY, allowed_models=allowed).may_call(names) is may


def test_a_key_does_not_show_its_digest():
    assert "digest" not in repr(KEY)
