"""How many failed logins are let pass, counted by account and by client address."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from mesh import secrets

ACCOUNT_WINDOW = timedelta(minutes=15)
ADDRESS_WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counter:
    """What to count an attempt under, and how many fit in a window of time."""

    key: bytes
    most: int
    window: timedelta


class Limits:
    """Names the counters of an attempt. They are kept by keyed hashes of the names."""

    def __init__(self, secret: str, *, per_account: int, per_address: int) -> None:
        """Takes the service's secret, and the failures that fit in each window."""
        self._key = secrets.derive(secret, "login attempts")
        self._per_account = per_account
        self._per_address = per_address

    def account(self, name: str) -> Counter:
        """The counter of an account, by its id; of one that does not exist, by the name tried."""
        return Counter(self._hash(f"account {name}"), self._per_account, ACCOUNT_WINDOW)

    def address(self, address: str) -> Counter | None:
        """The counter of a client's network address, if it has one."""
        if not address:
            return None
        return Counter(
            self._hash(f"address {_network(address)}"), self._per_address, ADDRESS_WINDOW
        )

    def _hash(self, name: str) -> bytes:
        return hmac.digest(self._key, name.encode(), hashlib.sha256)


def _network(address: str) -> str:
    """What one client has: an IPv4 address, or a /64 of IPv6, which is what is handed out."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
