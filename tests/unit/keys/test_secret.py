"""How secrets are written."""

import re
import zlib
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.keys import secret
from services.keys.secret import Digests

SERVICE_SECRET = "a secret of a service, long enough"


def test_a_secret_has_its_documented_shape_and_checksum():
    made = secret.new_secret()

    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    checksum = 0
    for character in made[46:]:
        checksum = checksum * 62 + alphabet.index(character)
    assert re.fullmatch("ai_[0-9A-Za-z]{49}", made)
    assert checksum == zlib.crc32(made[3:46].encode())
    assert secret.is_well_formed(made)
    assert secret.prefix(made) == made[:8]


def test_no_two_secrets_are_the_same():
    assert len({secret.new_secret() for _ in range(1000)}) == 1000


@given(st.integers(3, 51), st.sampled_from(digits + ascii_letters))
def test_a_secret_with_one_wrong_character_is_malformed(place, character):
    made = secret.new_secret()
    mistyped = made[:place] + character + made[place + 1 :]

    assert secret.is_well_formed(mistyped) is (mistyped == made)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: "",
        lambda made: made[:-1],
        lambda made: made + "0",
        lambda made: made + "\n",
        lambda made: "sk" + made[2:],
        lambda made: made[:10] + "é" + made[11:],
        lambda made: made[:10] + "１" + made[11:],  # noqa: RUF001 - a digit, but not one of ours
    ],
    ids=["empty", "short", "long", "line feed", "other prefix", "letter", "digit"],
)
def test_other_text_is_malformed(change):
    assert not secret.is_well_formed(change(secret.new_secret()))


def test_a_digest_depends_on_the_secret_and_on_the_service():
    one, other = secret.new_secret(), secret.new_secret()
    digests = Digests(SERVICE_SECRET)

    assert digests.of(one) == Digests(SERVICE_SECRET).of(one)
    assert len(digests.of(one)) == 32
    assert digests.of(one) != digests.of(other)
    assert digests.of(one) != Digests(SERVICE_SECRET[::-1]).of(one)
