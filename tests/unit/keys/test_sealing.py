"""What is encrypted opens in its own place, under its own secret, and nowhere else."""

from dataclasses import replace
from uuid import UUID

import pytest

from services.keys.domain.credentials import Place
from services.keys.sealing import Sealer

OLD, NEW = "the secret of before " * 2, "the secret of now " * 2
PLACE = Place(UUID(int=1), "openai", 1)
TEXT = "sk-of-somebody"


def test_what_was_sealed_opens_again_and_shows_nothing():
    sealed = [Sealer([NEW]).seal(TEXT, PLACE) for _ in range(2)]

    assert [Sealer([NEW]).open(each, PLACE) for each in sealed] == [TEXT, TEXT]
    assert sealed[0] != sealed[1]
    assert TEXT[3:].encode() not in sealed[0]


@pytest.mark.parametrize(
    "other",
    [
        replace(PLACE, owner_id=UUID(int=2)),
        replace(PLACE, provider="openai2"),
        replace(PLACE, version=2),
    ],
    ids=["owner", "provider", "version"],
)
def test_it_does_not_open_in_another_place(other):
    sealed = Sealer([NEW]).seal(TEXT, PLACE)

    assert Sealer([NEW]).open(sealed, other) is None


def test_it_opens_under_the_secret_of_before_and_is_sealed_with_that_of_now():
    before, now = Sealer([OLD]).seal(TEXT, PLACE), Sealer([NEW, OLD]).seal(TEXT, PLACE)

    assert Sealer([NEW, OLD]).open(before, PLACE) == TEXT
    assert Sealer([NEW]).open(before, PLACE) is None
    assert Sealer([NEW]).open(now, PLACE) == TEXT
    assert [Sealer([NEW, OLD]).is_of_now(each, PLACE) for each in (before, now)] == [False, True]


@pytest.mark.parametrize("cut", [0, 5, 12, 20])
def test_what_is_damaged_does_not_open(cut):
    sealed = Sealer([NEW]).seal(TEXT, PLACE)
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])

    assert Sealer([NEW]).open(sealed[:cut], PLACE) is None
    assert Sealer([NEW]).open(flipped, PLACE) is None
