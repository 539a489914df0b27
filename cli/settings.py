"""What `khesht up` and its siblings are told: by the environment, and by `.env`."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from dotenv import dotenv_values

from mesh.local.errors import LocalError


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

        Raises LocalError that names the variable that is wrong.
        """
        written = {name: value or "" for name, value in dotenv_values(".env").items()}
        everything = written | dict(os.environ)
        # An empty variable is one that is not set; only no origin is a choice too.
        given = {name: value for name, value in everything.items() if value}
        for variable in ("SECRET_KEY", "SECRET_KEY_PREVIOUS", "DATABASE_URL", "DB_PASSWORD"):
            _read_file(given, variable)
        gateway, native = _port(given, "GATEWAY_PORT", 8000), _port(given, "GRPC_PORT", 8443)
        if gateway == native:
            raise LocalError(f"GATEWAY_PORT and GRPC_PORT are both {gateway}")
        return cls(
            home=Path(given.get("KHESHT_HOME", ".khesht")),
            edge_address=_address(given),
            edge_tls=_edge_tls(given),
            gateway_port=gateway,
            grpc_port=native,
            workers=_count(given, "WORKERS", 1),
            cors_origins=everything.get("CORS_ORIGINS", "*"),
            database_url=_database_url(given),
            secret_key=given.get("SECRET_KEY"),
            environment=given,
        )


def _port(given: Mapping[str, str], variable: str, default: int) -> int:
    value = given.get(variable, str(default))
    if not value.isdigit() or not 1 <= int(value) <= 65535:
        raise LocalError(f"{variable} is {value!r}; a port is a number from 1 to 65535")
    return int(value)


def _address(given: Mapping[str, str]) -> str:
    value = given.get("EDGE_ADDRESS", "127.0.0.1")
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError:
        raise LocalError(f"EDGE_ADDRESS is {value!r}; it is an IPv4 address") from None


def _edge_tls(given: Mapping[str, str]) -> EdgeTls | None:
    files = {name: given.get(name) for name in ("EDGE_TLS_CERT_FILE", "EDGE_TLS_KEY_FILE")}
    missing = [name for name, path in files.items() if path is None]
    if len(missing) == 1:
        raise LocalError(f"{missing[0]} is missing: the edge needs both, or neither")
    for name, path in files.items():
        if path is not None and not os.access(path, os.R_OK):
            raise LocalError(f"{name}: can't read {path}")
    cert, key = (path and Path(path).absolute() for path in files.values())
    return EdgeTls(cert, key) if cert and key else None


def _count(given: Mapping[str, str], variable: str, default: int) -> int:
    value = given.get(variable, str(default))
    if not value.isdigit() or not 0 <= int(value) <= 64:
        raise LocalError(f"{variable} is {value!r}; it is a number from 0 to 64")
    return int(value)


def _read_file(given: dict[str, str], variable: str) -> None:
    """Sets `variable` to what the file holds that `variable`_FILE names, if it does."""
    path = given.pop(f"{variable}_FILE", None)
    if path is None or variable in given:
        return
    try:
        given[variable] = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise LocalError(f"{variable}_FILE: can't read {path}: {error.strerror}") from None


def _database_url(given: Mapping[str, str]) -> str | None:
    url = given.get("DATABASE_URL")
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise LocalError("DATABASE_URL must start with postgresql://")
    if url or "DB_HOST" not in given:
        return url and url.replace("postgres://", "postgresql://", 1)
    missing = [name for name in ("DB_USER", "DB_PASSWORD", "DB_NAME") if name not in given]
    if missing:
        raise LocalError(f"{missing[0]} is needed beside DB_HOST")
    place = f"{given['DB_HOST']}:{_port(given, 'DB_PORT', 5432)}"
    user, password = (quote(given[name], safe="") for name in ("DB_USER", "DB_PASSWORD"))
    return f"postgresql://{user}:{password}@{place}/{given['DB_NAME']}"
