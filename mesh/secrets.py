"""Keys for single purposes, derived from a service's one secret (HKDF, RFC 5869)."""

import base64

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def derive(secret: str, purpose: str) -> bytes:
    """32 bytes that depend on `secret` and `purpose`, and tell nothing of either."""
    return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(secret.encode())


def derive_text(secret: str, purpose: str) -> str:
    """`derive` in base64url without padding: 43 characters that need no quoting in a URL."""
    return base64.urlsafe_b64encode(derive(secret, purpose)).rstrip(b"=").decode()
