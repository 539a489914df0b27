"""Which passwords may be chosen, and how they are kept."""

import asyncio

import pytest
from argon2 import PasswordHasher, extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors
from services.auth.domain.passwords import Policy, normalise
from services.auth.passwords import Passwords

# As a keyboard for Japanese may type it.
WIDE = "password12345678".translate({ascii: ascii + 0xFEE0 for ascii in range(33, 127)})
NAMES = ("Margaret.Hamilton", "mhamilton.apollo@example.com")


def complaint(policy: Policy, password: str) -> str:
    try:
        policy.check("password", password, NAMES)
    except errors.InvalidRequest as refused:
        return refused.message
    return ""


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("password123", ""),
        ("aaaaaaaa", ""),
        ("1234567", "password: must have at least 8 characters"),
        # Eight as typed, seven when each accent joins its letter.
        ("e\u0301clairs", "password: must have at least 8 characters"),
    ],
)
def test_development_wants_eight_characters_and_nothing_else(password: str, expected: str) -> None:
    assert complaint(Policy(production=False), password) == expected


LONGER = "password: must have at least 15 characters"
KNOWN = "password: is too well known; choose another"
NAME = "password: must not be the username or the email"


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("fourteen chars", LONGER),
        ("fifteen chars!!", ""),
        ("🦉🦊🐢🐙🦋🐝🦔🐧🦜🐬🦭🐌🦩🐿🦚", ""),
        ("correct.Horse-staple.Battery", ""),
        ("123456789012345", KNOWN),
        ("Password1234567", KNOWN),
        ("QWERTYuiop12345!", KNOWN),
        (WIDE, KNOWN),
        ("aaaaaaaaaaaaaaaaaaaa", KNOWN),
        ("xyzzyxyzzyxyzzy", KNOWN),
        ("margaret.HAMILTON", NAME),
        ("mhamilton.apollo", NAME),
        ("MHamilton.Apollo@example.com", NAME),
    ],
)
def test_production_wants_fifteen_that_are_not_well_known(password: str, expected: str) -> None:
    assert complaint(Policy(production=True), password) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256))
def test_any_text_is_judged_alike_however_it_is_typed(password: str) -> None:
    policy = Policy(production=True)

    assert complaint(policy, password) == complaint(policy, normalise(password))


async def test_a_hash_is_argon2id_at_the_recommended_cost() -> None:
    passwords = Passwords()

    used = extract_parameters(await passwords.hash("password123"))

    passwords.close()
    assert (used.type.name, used.memory_cost, used.time_cost, used.parallelism) == (
        "ID",
        19456,
        2,
        1,
    )


async def test_every_character_counts_and_its_spelling_does_not() -> None:
    passwords = Passwords()
    long = "x" * 255
    kept = await passwords.hash(long + "\u00e9")

    tried = [
        await passwords.check(text, kept)
        for text in (long + "\u00e9", long + "e\u0301", long + "f", long)
    ]

    passwords.close()
    assert tried == [True, True, False, False]


async def test_nothing_opens_an_account_that_does_not_exist() -> None:
    passwords = Passwords()

    opened = await passwords.check("password123", None)

    passwords.close()
    assert not opened


async def test_older_parameters_are_noticed() -> None:
    passwords = Passwords()

    outdated = [
        passwords.is_outdated(kept)
        for kept in (PasswordHasher(1, 8, 1).hash("x"), await passwords.hash("x"))
    ]

    passwords.close()
    assert outdated == [True, False]


async def test_a_flood_is_sent_away_once_all_places_are_taken() -> None:
    passwords = Passwords()
    leave = asyncio.Event()

    async def come(number: int) -> None:
        async with passwords.place(number):
            await leave.wait()

    waiting = [asyncio.create_task(come(number)) for number in range(120)]
    refused, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    leave.set()
    came = await asyncio.gather(*waiting, return_exceptions=True)

    async with passwords.place(0):
        pass
    passwords.close()
    assert (len(refused), [each for each in came if each is None]) == (20, [None] * 100)
    assert {each.reason for each in came if isinstance(each, errors.Unavailable)} == {"OVERLOADED"}


async def test_a_flood_of_one_caller_has_half_of_all_places_and_others_pass_it() -> None:
    passwords = Passwords()
    done: list[str] = []

    async def come(caller: str) -> None:
        async with passwords.place(caller):
            await passwords.hash("password123")
        done.append(caller)

    flood = [asyncio.create_task(come("flood")) for _ in range(60)]
    await asyncio.sleep(0)  # They have come.
    await come("another")
    came = await asyncio.gather(*flood, return_exceptions=True)

    passwords.close()
    refused = [each for each in came if each is not None]
    assert {each.reason for each in refused if isinstance(each, errors.Unavailable)} == {
        "OVERLOADED"
    }
    assert (len(refused), done.count("flood")) == (10, 50)
    # After those of the flood that had their turn, and those that ended meanwhile.
    assert done.index("another") < 10


def test_a_weak_password_is_refused_under_the_name_of_its_field() -> None:
    with pytest.raises(errors.InvalidRequest) as refused:
        Policy(production=True).check("new_password", "password123", NAMES)

    said = refused.value
    assert (said.reason, [each.field for each in said.violations]) == (
        "WEAK_PASSWORD",
        ["new_password"],
    )
