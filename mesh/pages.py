"""Page tokens (AIP-158): opaque places in a list, good for that list alone."""

import base64
import hashlib
import hmac
from typing import Any

import orjson

from mesh import errors, secrets

_DEFAULT = 50
_MOST = 200
_SIGNATURE_BYTES = 16


def size(page_size: int) -> int:
    """How many to give when `page_size` are wanted: 0 means 50; at most 200."""
    return min(page_size, _MOST) if page_size else _DEFAULT


class PageTokens:
    """Signs places, so that no token but our own is read."""

    def __init__(self, secret: str) -> None:
        """Takes the service's secret, which its replicas share."""
        self._key = secrets.derive(secret, "page tokens")

    def write(self, of: str, place: list[Any]) -> str:
        """The token of `place`, a list of JSON values, in the list named `of`."""
        body = orjson.dumps(place)
        return base64.urlsafe_b64encode(self._sign(of, body) + body).decode().rstrip("=")

    def read(self, of: str, token: str) -> list[Any] | None:
        """The place that `token` names, or None for the first page.

        Raises InvalidRequest for a token of another list.
        """
        if not token:
            return None
        try:
            raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            raise _not_ours() from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(of, body)):
            raise _not_ours()
        place: list[Any] = orjson.loads(body)
        return place

    def _sign(self, of: str, body: bytes) -> bytes:
        message = of.encode() + b"\0" + body
        return hmac.digest(self._key, message, hashlib.sha256)[:_SIGNATURE_BYTES]


def _not_ours() -> errors.InvalidRequest:
    return errors.invalid("page_token", "not a token of this list", reason="INVALID_PAGE_TOKEN")
