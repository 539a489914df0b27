"""How many failed logins and registrations are let pass, by account and client address."""

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass
from datetime import timedelta

from mesh import secrets

SHORT_WINDOW = timedelta(minutes=15)
LONG_WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Counter:
    """What to count an attempt under, and how many fit in a window of time."""

    key: bytes
    most: int
    window: timedelta


class Limits:
    """Names the counters of an attempt. They are kept by keyed hashes of the names.

    An account is named by its id; one that does not exist, by the name tried.
    """

    def __init__(
        self,
        secret: str,
        *,
        per_account: int,
        per_address: int,
        of_strangers: int = 100,
        registrations: int = 1_000,
    ) -> None:
        """Takes the service's secret, and the attempts that fit in each window."""
        self._key = secrets.derive(secret, "login attempts")
        self._per_account = per_account
        self._per_address = per_address
        self._of_strangers = of_strangers
        self._registrations = registrations

    def login(self, account: str, address: str) -> Counter:
        """The counter of logins to an account from one network address."""
        name = f"login {account} {_network(address)}"
        return Counter(self._hash(name), self._per_account, SHORT_WINDOW)

    def account(self, account: str) -> Counter:
        """The counter of logins to an account from all addresses that are unknown to it."""
        return Counter(
            self._hash(f"account from anywhere {account}"), self._of_strangers, LONG_WINDOW
        )

    def session(self, session_id: str) -> Counter:
        """The counter of a session's tries of the current password."""
        return Counter(self._hash(f"session {session_id}"), self._per_account, SHORT_WINDOW)

    def address(self, address: str) -> Counter | None:
        """The counter of logins from a network address to whatever account, if there is one."""
        if not address:
            return None
        return Counter(self._hash(f"address {_network(address)}"), self._per_address, LONG_WINDOW)

    def registrations(self, address: str) -> Counter | None:
        """The counter of registrations from a network address, if there is one."""
        if not address:
            return None
        name = f"registrations {_network(address)}"
        return Counter(self._hash(name), self._registrations, LONG_WINDOW)

    def device(self, account: str, address: str) -> bytes | None:
        """By what an account knows a network address again, if there is one."""
        return self._hash(f"device {account} {_network(address)}") if address else None

    def _hash(self, name: str) -> bytes:
        return hmac.digest(self._key, name.encode(), hashlib.sha256)


def _network(address: str) -> str:
    """What one client has: an IPv4 address, or a /64 of IPv6, which is what is handed out."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed.packed[:8] + bytes(8), 64)))
