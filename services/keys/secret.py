"""The secret of a key: how it is written, and what is stored in its place.

`ai_`, 43 base62 characters of 32 random bytes, and 6 of the CRC-32 of those 43:
a scanner can tell a leaked key from other text, and a mistyped one is refused
before any look-up. The checksum is no secret and proves nothing.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from string import ascii_lowercase, ascii_uppercase, digits

from mesh.secrets import derive

_ALPHABET = digits + ascii_uppercase + ascii_lowercase
_SHAPE = re.compile(r"ai_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_SHOWN = 8


def new_secret() -> str:
    """A new secret, of 256 random bits."""
    body = _base62(int.from_bytes(secrets.token_bytes(32)), 43)
    return f"ai_{body}{_checksum(body)}"


def is_well_formed(text: str) -> bool:
    """Whether `text` could be a secret: it has the shape, and its checksum is right."""
    match = _SHAPE.fullmatch(text)
    return match is not None and match[2] == _checksum(match[1])


def prefix(secret: str) -> str:
    """The part of a secret that may be shown: 30 of its 256 random bits."""
    return secret[:_SHOWN]


class Digests:
    """What stands for secrets in the database: HMAC-SHA-256 under a key it does not hold."""

    def __init__(self, service_secret: str) -> None:
        """Derives the key from the service's secret: another one, and no API key is known."""
        self._pepper = derive(service_secret, "API key digests")

    def of(self, secret: str) -> bytes:
        """The digest of `secret`, 32 bytes."""
        return hmac.digest(self._pepper, secret.encode(), hashlib.sha256)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), 6)


def _base62(number: int, width: int) -> str:
    text = ""
    for _ in range(width):
        number, digit = divmod(number, 62)
        text = _ALPHABET[digit] + text
    return text
