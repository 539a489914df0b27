"""The tokens that auth makes, and those that nobody may take for its own."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from mesh import errors, secrets
from mesh.identity.principal import Principal
from mesh.identity.tokens import PublicKeys, TokenVerifier
from services.auth.domain.accounts import User
from services.auth.tokens import AccessTokens, PublicKey, RefreshTokens, _public_key

SECRET, OLD_SECRET = "the secret of these tests " * 2, "the secret of before " * 2
OURS = AccessTokens((SECRET, OLD_SECRET), 900)
KEY = Ed25519PrivateKey.from_private_bytes(secrets.derive(SECRET, "access tokens"))
KID = OURS.public_keys[0].id
SESSION = UUID(int=7)
USER = User(UUID(int=3), None, "ann@example.com", "admin", datetime.now(UTC))


async def published() -> PublicKeys:
    return {
        key.id: Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.x + "="))
        for key in OURS.public_keys
    }


async def verdict(token: str) -> Principal | str:
    try:
        return await TokenVerifier(published).verify(token)
    except errors.Unauthenticated as refused:
        return refused.reason


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with `changes`; None leaves one out."""
    now = int(time.time())
    good = {
        "iss": "khesht",
        "aud": "khesht",
        "sub": str(USER.id),
        "sid": str(SESSION),
        "role": "user",
        "iat": now,
        "nbf": now,
        "exp": now + 900,
        "jti": "x",
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(
    given: dict[str, Any] | None = None, key: Any = KEY, alg: str = "EdDSA", **header: Any
) -> str:
    headers = {"typ": "at+jwt", "kid": KID} | header
    return jwt.encode(given or claims(), key, algorithm=alg, headers=headers)


def part(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: str, payload: str, key: Ed25519PrivateKey = KEY) -> str:
    """A token signed by `key` over any bytes."""
    message = f"{part(header)}.{part(payload)}"
    return f"{message}.{part(key.sign(message.encode()))}"


def tampered(token: str, index: int) -> str:
    parts = token.split(".")
    parts[index] = ("B" if parts[index][0] == "A" else "A") + parts[index][1:]
    return ".".join(parts)


def hs256(key: bytes) -> str:
    """HS256 by what everyone knows: PyJWT itself would refuse such a key."""
    header = json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": KID})
    message = f"{part(header)}.{part(json.dumps(claims()))}"
    return f"{message}.{part(hmac.digest(key, message.encode(), hashlib.sha256))}"


PUBLIC = KEY.public_key()
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
HEADER = json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": KID})
STRANGER = Ed25519PrivateKey.generate()

BAD: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: signed(key=None, alg="none"),
    "no algorithm, other case": lambda: by_hand(
        HEADER.replace("EdDSA", "NoNe"), json.dumps(claims())
    ),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "HS256 by the public key": lambda: hs256(PUBLIC.public_bytes_raw()),
    "HS256 by the public key as PEM": lambda: hs256(PEM),
    "ES256 by another key": lambda: signed(
        key=ec.generate_private_key(ec.SECP256R1()), alg="ES256"
    ),
    "another key, our kid": lambda: signed(key=STRANGER),
    "an unknown kid": lambda: signed(key=STRANGER, kid="unknown"),
    "the kid of the other key": lambda: signed(kid=OURS.public_keys[1].id),
    "no kid": lambda: by_hand(HEADER.replace("kid", "key"), json.dumps(claims())),
    "a kid that is no text": lambda: by_hand(
        HEADER.replace(f'"{KID}"', f'["{KID}"]'), json.dumps(claims())
    ),
    "the type of any JWT": lambda: signed(typ="JWT"),
    "no type": lambda: signed(typ=None),
    "an extension to understand": lambda: signed(crit=["exp"], exp=1),
    "another issuer": lambda: signed(claims(iss="someone")),
    "no issuer": lambda: signed(claims(iss=None)),
    "another audience": lambda: signed(claims(aud="elsewhere")),
    "no audience": lambda: signed(claims(aud=None)),
    "expired": lambda: signed(claims(exp=int(time.time()) - 31)),
    "no end": lambda: signed(claims(exp=None)),
    "an end that is no time": lambda: signed(claims(exp="tomorrow")),
    "not yet good": lambda: signed(claims(nbf=int(time.time()) + 60)),
    "issued in the future": lambda: signed(claims(iat=int(time.time()) + 60)),
    "no issue time": lambda: signed(claims(iat=None)),
    "no start": lambda: signed(claims(nbf=None)),
    "no subject": lambda: signed(claims(sub=None)),
    "a subject that is no id": lambda: signed(claims(sub="ann")),
    "no session": lambda: signed(claims(sid=None)),
    "a session that is no id": lambda: signed(claims(sid="1")),
    "a session that is a number": lambda: signed(claims(sid=1)),
    "no role": lambda: signed(claims(role=None)),
    "huge": lambda: signed(claims(more="x" * 5000)),
    "a megabyte": lambda: "x" * (1 << 20),
    "a changed header": lambda: tampered(signed(), 0),
    "changed claims": lambda: tampered(signed(), 1),
    "a changed signature": lambda: tampered(signed(), 2),
    "claims that are a list": lambda: by_hand(HEADER, "[]"),
    "claims that are no JSON": lambda: by_hand(HEADER, "{"),
    "a header that is a list": lambda: by_hand("[]", "{}"),
    "a header that is deep": lambda: by_hand("[" * 2000, "{}"),
    "four parts": lambda: signed() + ".x",
    "one part": lambda: "token",
    "nothing": lambda: "",
    "dots": lambda: "..",
    "no ASCII": lambda: "ключ.от.дома",
    "an API key": lambda: "ai_" + "x" * 40,
    "a refresh token": lambda: RefreshTokens((SECRET,)).write(SESSION, 0),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_is_refused(name: str) -> None:
    assert await verdict(BAD[name]()) == "INVALID_CREDENTIALS"


async def test_the_tokens_these_bad_ones_are_made_of_are_good() -> None:
    expected = Principal(USER.id, "user", SESSION)

    assert await verdict(signed()) == expected
    assert await verdict(by_hand(HEADER, json.dumps(claims()))) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
async def test_no_text_breaks_the_verifier(text: str) -> None:
    assert await verdict(text) == "INVALID_CREDENTIALS"


async def test_our_own_token_says_who_calls_and_for_how_long() -> None:
    token = OURS.sign(USER, SESSION)

    assert await verdict(token) == Principal(USER.id, "admin", SESSION)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": KID}
    said = jwt.decode(token, PUBLIC, algorithms=["EdDSA"], audience="khesht")
    assert (said["iss"], said["exp"] - said["iat"], said["nbf"]) == ("khesht", 900, said["iat"])


async def test_what_the_previous_secret_signed_is_still_good() -> None:
    before = AccessTokens((OLD_SECRET,), 900)

    assert await verdict(before.sign(USER, SESSION)) == Principal(USER.id, "admin", SESSION)
    assert OURS.public_keys[1:] == before.public_keys


def test_a_key_is_called_by_its_thumbprint() -> None:
    # RFC 8037, appendix A.3.
    raw = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = _public_key(Ed25519PrivateKey.from_private_bytes(raw))

    assert key == PublicKey(
        id="kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        x="11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    )


def test_a_refresh_token_says_its_session_to_whoever_has_the_secret_alone() -> None:
    token = RefreshTokens((SECRET,)).write(SESSION, 41)

    readers = [(SECRET,), (OLD_SECRET, SECRET), (OLD_SECRET,)]
    assert [RefreshTokens(secret_keys).read(token) for secret_keys in readers] == [
        (SESSION, 41),
        (SESSION, 41),
        None,
    ]
    assert token.startswith("rt_")


@pytest.mark.parametrize("index", range(len("rt_") + 70))
def test_a_refresh_token_with_any_character_changed_is_none(index: int) -> None:
    ours = RefreshTokens((SECRET,))
    token = ours.write(uuid4(), 1)
    other = "A" if token[index] != "A" else "B"

    assert ours.read(token[:index] + other + token[index + 1 :]) is None


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_no_text_breaks_the_reader_of_refresh_tokens(text: str) -> None:
    assert RefreshTokens((SECRET,)).read(text) is None
    assert RefreshTokens((SECRET,)).read(f"rt_{text}") is None
