"""What the verifier of access tokens remembers, and what it asks for."""

import asyncio
import time
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh import errors
from mesh.identity import tokens
from mesh.identity.tokens import PublicKeys, TokenVerifier

KEY = Ed25519PrivateKey.generate()


def token(kid: str = "one", key: Ed25519PrivateKey = KEY, expires_in: float = 900) -> str:
    now = time.time()
    claims = {"iss": tokens.ISSUER, "aud": tokens.AUDIENCE, "sub": str(uuid4())}
    claims |= {"sid": str(uuid4()), "role": "user"}
    times = {"iat": int(now), "nbf": int(now), "exp": int(now + expires_in)}
    header = {"typ": tokens.TYPE, "kid": kid}
    return jwt.encode({**claims, **times}, key, algorithm=tokens.ALGORITHM, headers=header)


class Auth:
    """Publishes keys, and counts how often it is asked for them."""

    def __init__(self) -> None:
        self.keys: PublicKeys = {"one": KEY.public_key()}
        self.asked = 0
        self.down = False

    async def __call__(self) -> PublicKeys:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise ConnectionError
        return dict(self.keys)


@pytest.fixture
def auth() -> Auth:
    return Auth()


async def test_the_keys_are_asked_for_once(auth: Auth):
    verifier = TokenVerifier(auth)
    await asyncio.gather(*(verifier.verify(token()) for _ in range(20)))
    assert auth.asked == 1


async def test_a_signature_is_checked_once(auth: Auth, monkeypatch: pytest.MonkeyPatch):
    verifier, given = TokenVerifier(auth), token()
    first = await verifier.verify(given)
    monkeypatch.setattr(tokens.jwt, "decode", None)  # Whoever calls it fails.
    assert await verifier.verify(given) is first


async def test_a_token_that_differs_in_its_last_letter_is_another(auth: Auth):
    verifier, given = TokenVerifier(auth), token()
    await verifier.verify(given)
    # The letter before the last holds six bits of the signature, the last one only some.
    changed = given[:-2] + ("A" if given[-2] != "A" else "B") + given[-1]
    with pytest.raises(errors.Unauthenticated):
        await verifier.verify(changed)


async def test_what_is_remembered_expires_with_the_token(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
):
    verifier, given = TokenVerifier(auth), token(expires_in=60)
    await verifier.verify(given)
    later = time.time() + 60 + tokens._LEEWAY + 2
    monkeypatch.setattr(tokens.time, "time", lambda: later)
    assert later - tokens._LEEWAY > 60
    assert not await remembered(verifier, given)


async def remembered(verifier: TokenVerifier, given: str) -> bool:
    """Whether the verifier answers without reading the token: it is made unable to."""

    async def unable(_: str) -> None:
        raise LookupError

    verifier._read = unable  # type: ignore[method-assign,assignment]  # the point of it
    try:
        await verifier.verify(given)
    except LookupError:
        return False
    return True


async def test_it_remembers_until_then(auth: Auth):
    verifier, given = TokenVerifier(auth), token()
    await verifier.verify(given)
    assert await remembered(verifier, given)


async def test_a_refusal_is_not_remembered(auth: Auth):
    verifier, theirs = TokenVerifier(auth), token(key=Ed25519PrivateKey.generate())
    for _ in range(2):
        with pytest.raises(errors.Unauthenticated):
            await verifier.verify(theirs)
    assert not await remembered(verifier, theirs)


async def test_only_so_many_are_remembered(auth: Auth, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "_CACHED_TOKENS", 3)
    verifier = TokenVerifier(auth)
    for _ in range(10):
        await verifier.verify(token())
        assert len(verifier._verdicts) <= 3


async def test_unknown_keys_make_it_ask_at_most_every_5_seconds(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now[0])
    verifier = TokenVerifier(auth)
    await verifier.verify(token())
    for _ in range(50):
        with pytest.raises(errors.Unauthenticated):
            await verifier.verify(token(kid="unknown"))
    assert auth.asked == 1
    auth.keys["new"] = KEY.public_key()
    now[0] += 5.1
    assert await verifier.verify(token(kid="new"))
    assert auth.asked == 2


async def test_auth_that_is_down_is_not_the_callers_fault(auth: Auth):
    verifier = TokenVerifier(auth)
    auth.down = True
    with pytest.raises(ConnectionError):
        await verifier.verify(token())
    auth.down = False
    assert await verifier.verify(token())


@pytest.mark.parametrize("text", ["", ".", "a.b.c", "ey" * 3000, "é.é.é", "\0"])
async def test_what_is_no_token_is_refused_without_asking(auth: Auth, text: str):
    with pytest.raises(errors.Unauthenticated):
        await TokenVerifier(auth).verify(text)
    assert auth.asked == 0
