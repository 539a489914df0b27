"""What a key may do."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.keys.domain import credentials
from services.keys.domain.keys import Budget, Key, Verdict, nano_usd, usd

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


@pytest.mark.parametrize(
    ("digest", "revoked_at", "previous_until", "standing"),
    [
        (b"digest", None, NOW, Verdict.ALLOWED),
        (b"before", None, NOW + MOMENT, Verdict.ALLOWED),
        (b"before", None, NOW, Verdict.EXPIRED),
        (b"before", NOW, NOW + MOMENT, Verdict.REVOKED),
        (b"digest", NOW, NOW + MOMENT, Verdict.REVOKED),
    ],
    ids=["new", "in grace", "after grace", "old and revoked", "new and revoked"],
)
def test_the_previous_secret_ends_by_itself_and_with_its_key(
    digest, revoked_at, previous_until, standing
):
    key = replace(
        KEY, revoked_at=revoked_at, previous_digest=b"before", previous_expires_at=previous_until
    )

    assert key.standing_of(digest, NOW) is standing
    assert "before" not in repr(key)


def test_a_key_has_a_budget_when_anything_limits_what_it_spends():
    assert KEY.budget is None
    assert replace(KEY, soft_budget=0).budget == Budget(soft=0)


@given(st.integers(0, 10**15))
def test_sums_of_money_come_back_as_they_were_set(nanos):
    assert nano_usd(usd(nanos)) == nanos


@pytest.mark.parametrize(
    ("provider", "api_key", "missing"),
    [
        ("openai", "sk-123", None),
        ("openai", "gsk_123", "sk-"),
        ("groq", "gsk_123", None),
        ("huggingface", "sk-123", "hf_"),
        ("our-own", "anything", None),
    ],
)
def test_a_providers_key_must_begin_as_they_do(provider, api_key, missing):
    assert credentials.missing_prefix(provider, api_key) == missing
