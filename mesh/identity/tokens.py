"""Access tokens: signed by auth (EdDSA), verified anywhere by its public keys.

Follows RFC 8725: one algorithm, fixed issuer, audience and type, and no key but
those that auth publishes.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from mesh import errors
from mesh.identity.principal import Principal

ISSUER = "khesht"
AUDIENCE = "khesht"
TYPE = "at+jwt"
ALGORITHM = "EdDSA"
_LEEWAY = 30
_LONGEST = 4096
_CACHED_TOKENS = 10_000
# A token that names an unknown key makes us ask auth, at most this often.
_KEYS_AT_MOST_EVERY = 5.0

PublicKeys = dict[str, Ed25519PublicKey]


class TokenVerifier:
    """Tells who an access token speaks for.

    A signature costs 100 µs to check, so a verdict is kept for the token's
    lifetime under the SHA-256 of the whole token.
    """

    def __init__(self, fetch_keys: Callable[[], Awaitable[PublicKeys]]) -> None:
        """Asks `fetch_keys` for auth's public keys by id, when it meets a new id."""
        self._fetch_keys = fetch_keys
        self._keys: PublicKeys = {}
        self._fetched = float("-inf")
        self._fetching = asyncio.Lock()
        self._verdicts: dict[bytes, tuple[float, Principal]] = {}

    async def verify(self, token: str) -> Principal:
        """Who `token` speaks for. Raises Unauthenticated, or what fetching raises."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verdicts.get(digest)
        if known is not None:
            if known[0] > time.time():
                return known[1]
            del self._verdicts[digest]
        expires, principal = await self._read(token)
        if len(self._verdicts) >= _CACHED_TOKENS:
            self._verdicts.clear()
        self._verdicts[digest] = (expires, principal)
        return principal

    async def _read(self, token: str) -> tuple[float, Principal]:
        if len(token) > _LONGEST:
            raise _not_ours()
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != TYPE or header.get("alg") != ALGORITHM:
                raise _not_ours()
            claims = jwt.decode(
                token,
                key=await self._key(str(header.get("kid"))),
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "nbf", "sub", "sid", "role"]},
            )
            session_id = UUID(claims["sid"])
            principal = Principal(UUID(claims["sub"]), str(claims["role"]), session_id)
        except jwt.ExpiredSignatureError:
            raise errors.Unauthenticated(
                "INVALID_CREDENTIALS", "the access token has expired"
            ) from None
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            raise _not_ours() from None
        return float(claims["exp"]) + _LEEWAY, principal

    async def _key(self, kid: str) -> Ed25519PublicKey:
        if kid in self._keys:
            return self._keys[kid]
        async with self._fetching:
            if kid not in self._keys and time.monotonic() - self._fetched > _KEYS_AT_MOST_EVERY:
                self._keys = await self._fetch_keys()
                self._fetched = time.monotonic()
        try:
            return self._keys[kid]
        except KeyError:
            raise _not_ours() from None


def _not_ours() -> errors.Unauthenticated:
    return errors.Unauthenticated("INVALID_CREDENTIALS", "the access token is not one of ours")
