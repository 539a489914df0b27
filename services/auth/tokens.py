"""Makes the tokens of a session: signed ones to call with, and ones to get the next by.

Both hang on the service's secret alone, so replicas agree and nothing of them is
stored: a stolen database yields no token.
"""

import base64
import hashlib
import hmac
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh import secrets
from mesh.identity.tokens import ALGORITHM, AUDIENCE, ISSUER, TYPE
from services.auth.domain.accounts import User

REFRESH_PREFIX = "rt_"
# Session id, number of the token in the session, MAC.
_REFRESH = struct.Struct(">16sI32s")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key as in RFC 8037; `id` is its thumbprint (RFC 7638)."""

    id: str
    x: str


class AccessTokens:
    """Signs access tokens (RFC 9068 in type and claims, RFC 8725 in care)."""

    def __init__(self, secret_keys: Sequence[str], seconds: int) -> None:
        """Signs by the first secret for `seconds`; the others' keys are published too."""
        keys = [_private_key(secret) for secret in secret_keys]
        self._key = keys[0]
        self.seconds = seconds
        self.public_keys = tuple(_public_key(key) for key in keys)

    def sign(self, user: User, session_id: UUID) -> str:
        """A token that speaks for `user` from now on."""
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user.id),
            "sid": str(session_id),
            "role": user.role,
            "iat": now,
            "nbf": now,
            "exp": now + self.seconds,
            "jti": uuid4().hex,
        }
        header = {"typ": TYPE, "kid": self.public_keys[0].id}
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers=header)


class RefreshTokens:
    """Writes and reads refresh tokens: which session, the how-manieth token, and a MAC.

    As each follows from its number, a lost answer can be given again.
    """

    def __init__(self, secret_keys: Sequence[str]) -> None:
        """Writes by the first secret and reads what any of them wrote."""
        self._keys = [secrets.derive(secret, "refresh tokens") for secret in secret_keys]

    def write(self, session_id: UUID, generation: int) -> str:
        """The `generation`-th token of a session."""
        return _refresh_token(self._keys[0], session_id.bytes, generation)

    def read(self, token: str) -> tuple[UUID, int] | None:
        """The session and generation that `token` was written for, if it was."""
        try:
            raw = base64.urlsafe_b64decode(token.removeprefix(REFRESH_PREFIX) + "==")
            session_id, generation, _ = _REFRESH.unpack(raw)
        except (ValueError, struct.error):
            return None
        for key in self._keys:
            ours = _refresh_token(key, session_id, generation)
            if hmac.compare_digest(ours.encode(), token.encode()):
                return UUID(bytes=session_id), generation
        return None


def _refresh_token(key: bytes, session_id: bytes, generation: int) -> str:
    message = session_id + generation.to_bytes(4, "big")
    mac = hmac.digest(key, message, hashlib.sha256)
    return REFRESH_PREFIX + _base64(_REFRESH.pack(session_id, generation, mac))


def _private_key(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(secrets.derive(secret, "access tokens"))


def _public_key(key: Ed25519PrivateKey) -> PublicKey:
    x = _base64(key.public_key().public_bytes_raw())
    members = {"crv": "Ed25519", "kty": "OKP", "x": x}
    return PublicKey(_base64(hashlib.sha256(orjson.dumps(members)).digest()), x)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
