"""Encryption of what others must be given back as it was: AES-256-GCM (NIST SP 800-38D).

The keys are derived from the service's secret, which is not in the database; and what is
sealed opens in its own place alone, so that rows that are swapped give nothing away.
"""

import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mesh.secrets import derive
from services.keys.domain.credentials import Place

# Random ones of 96 bits: fit for four thousand million sealings under one key.
_NONCE = 12


class Sealer:
    """Seals with the service's secret, and opens what was sealed with it or the one before."""

    def __init__(self, service_secrets: Sequence[str]) -> None:
        """Takes the secret to work with, and those to accept the work of."""
        self._ciphers = [AESGCM(derive(each, "provider credentials")) for each in service_secrets]

    def seal(self, text: str, place: Place) -> bytes:
        """`text`, for `place` alone."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._ciphers[0].encrypt(nonce, text.encode(), _bytes_of(place))

    def open(self, sealed: bytes, place: Place) -> str | None:
        """What was sealed for `place`, or None when this was not, or under another secret."""
        return next(filter(None, (_opened(each, sealed, place) for each in self._ciphers)), None)

    def is_of_now(self, sealed: bytes, place: Place) -> bool:
        """Whether it opens with the secret to work with, and not with the one before."""
        return _opened(self._ciphers[0], sealed, place) is not None


def _opened(cipher: AESGCM, sealed: bytes, place: Place) -> str | None:
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], _bytes_of(place)).decode()
    except (InvalidTag, ValueError):
        return None


def _bytes_of(place: Place) -> bytes:
    """What no other place has: the parts before the name are of fixed length."""
    return place.owner_id.bytes + place.version.to_bytes(8) + place.provider.encode()
