"""What `khesht up` and its siblings are told: by the environment, and by `.env`."""

import ipaddress
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from dotenv import dotenv_values

from mesh.local.errors import LocalError

# Lines that it can't read are named by cli/typos.py, once and in our words.
logging.getLogger("dotenv").setLevel(logging.ERROR)

_LOOPBACK = "127.0.0.1"
_PORTS = range(1, 65536)
_CONNECTIONS = range(100, 100_001)
_MEMORY_MIB = range(256, 65_537)
_BODY_MIB = range(1, 65)
_HOPS = range(11)


@dataclass(frozen=True, slots=True)
class EdgeTls:
    """The PEM files by which the edge's ports speak TLS: a chain of certificates, and its key."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Where a mesh on this machine lives. `environment` is all that was set, by name."""

    home: Path
    edge_address: str
    edge_tls: EdgeTls | None
    edge_connections: int
    edge_connections_per_address: int
    edge_memory_mib: int
    trusted_proxy_hops: int
    body_limit_mib: int
    gateway_port: int
    grpc_port: int
    cors_origins: str
    workers: int
    database_url: str | None
    secret_key: str | None
    environment: Mapping[str, str]

    @property
    def edge_host(self) -> str:
        """By which name this machine reaches the edge."""
        address = ipaddress.IPv4Address(self.edge_address)
        return "localhost" if address.is_loopback or address.is_unspecified else str(address)

    @classmethod
    def read(cls) -> Self:
        """The settings of this process; what `.env` holds gives way to the environment.

        Raises LocalError with a line for each variable that is wrong.
        """
        settings, wrong = cls.attempt(os.environ)
        if wrong:
            raise LocalError("\n".join(wrong))
        return settings

    @classmethod
    def attempt(cls, environment: Mapping[str, str]) -> tuple[Self, list[str]]:
        """As `read` in that `environment`, with a line for each variable that is wrong.

        What is wrong has its default.
        """
        written = {name: value or "" for name, value in dotenv_values(".env").items()}
        everything = written | dict(environment)
        # An empty variable is one that is not set; only no origin is a choice too.
        given = {name: value for name, value in everything.items() if value}
        wrong: list[str] = []
        gateway = _number(given, "GATEWAY_PORT", 8000, _PORTS, wrong)
        native = _number(given, "GRPC_PORT", 8443, _PORTS, wrong)
        if gateway == native and not wrong:
            wrong.append(f"GATEWAY_PORT and GRPC_PORT are both {gateway}")
        for variable in ("SECRET_KEY", "SECRET_KEY_PREVIOUS", "DATABASE_URL", "DB_PASSWORD"):
            _read_file(given, variable, wrong)
        settings = cls(
            home=Path(given.get("KHESHT_HOME", ".khesht")),
            edge_address=_address(given, wrong),
            edge_tls=_edge_tls(given, wrong),
            edge_connections=_number(given, "EDGE_CONNECTIONS", 8000, _CONNECTIONS, wrong),
            edge_connections_per_address=_number(
                given, "EDGE_CONNECTIONS_PER_ADDRESS", 2000, _CONNECTIONS, wrong
            ),
            trusted_proxy_hops=_number(given, "TRUSTED_PROXY_HOPS", 0, _HOPS, wrong),
            edge_memory_mib=_number(given, "EDGE_MEMORY_MIB", 1_536, _MEMORY_MIB, wrong),
            body_limit_mib=_number(given, "BODY_LIMIT_MIB", 20, _BODY_MIB, wrong),
            gateway_port=gateway,
            grpc_port=native,
            workers=_number(given, "WORKERS", 1, range(65), wrong),
            cors_origins=everything.get("CORS_ORIGINS", "*"),
            database_url=_database_url(given, wrong),
            secret_key=given.get("SECRET_KEY"),
            environment=given,
        )
        return settings, wrong


# Each of these adds a line to `wrong` for what it can't read.


def _number(
    given: Mapping[str, str], variable: str, default: int, allowed: range, wrong: list[str]
) -> int:
    value = given.get(variable, str(default))
    # More digits than any has: Python refuses to read thousands of them.
    if value.isdecimal() and len(value) < 10 and int(value) in allowed:
        return int(value)
    what = "a port is" if allowed is _PORTS else "it is"
    wrong.append(f"{variable} is {value!r}; {what} a number from {allowed[0]} to {allowed[-1]}")
    return default


def _address(given: Mapping[str, str], wrong: list[str]) -> str:
    value = given.get("EDGE_ADDRESS", _LOOPBACK)
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        wrong.append(f"EDGE_ADDRESS is {value!r}; it is an IPv4 address")
        return _LOOPBACK


def _edge_tls(given: Mapping[str, str], wrong: list[str]) -> EdgeTls | None:
    files = {name: given.get(name) for name in ("EDGE_TLS_CERT_FILE", "EDGE_TLS_KEY_FILE")}
    missing = [name for name, path in files.items() if path is None]
    if len(missing) == 1:
        wrong.append(f"{missing[0]} is missing: the edge needs both, or neither")
    unread = [name for name, path in files.items() if path and not os.access(path, os.R_OK)]
    wrong.extend(f"{name}: can't read {files[name]}" for name in unread)
    cert, key = (path and Path(path).absolute() for path in files.values())
    return EdgeTls(cert, key) if cert and key and not unread else None


def _read_file(given: dict[str, str], variable: str, wrong: list[str]) -> None:
    """Sets `variable` to what the file holds that `variable`_FILE names, if it does."""
    path = given.pop(f"{variable}_FILE", None)
    if path is None or variable in given:
        return
    try:
        given[variable] = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        wrong.append(f"{variable}_FILE: can't read {path}: {error.strerror}")


def _database_url(given: Mapping[str, str], wrong: list[str]) -> str | None:
    url = given.get("DATABASE_URL")
    if url and not url.startswith(("postgresql://", "postgres://")):
        wrong.append("DATABASE_URL must start with postgresql://")
        return None
    if url or "DB_HOST" not in given:
        return url and url.replace("postgres://", "postgresql://", 1)
    port = _number(given, "DB_PORT", 5432, _PORTS, wrong)
    missing = [name for name in ("DB_USER", "DB_PASSWORD", "DB_NAME") if name not in given]
    wrong.extend(f"{name} is needed beside DB_HOST" for name in missing)
    if missing:
        return None
    user, password = (quote(given[name], safe="") for name in ("DB_USER", "DB_PASSWORD"))
    return f"postgresql://{user}:{password}@{given['DB_HOST']}:{port}/{given['DB_NAME']}"
