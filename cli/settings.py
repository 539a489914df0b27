"""What `khesht up` and its siblings are told: by the environment, and by `.env`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dotenv import dotenv_values

from mesh.local.errors import LocalError


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Where a mesh on this machine lives. `environment` is all that was set, by name."""

    home: Path
    gateway_port: int
    grpc_port: int
    cors_origins: str
    database_url: str | None
    secret_key: str | None
    environment: Mapping[str, str]

    @classmethod
    def read(cls) -> Self:
        """The settings of this process; what `.env` holds gives way to the environment.

        Raises LocalError that names the variable that is wrong.
        """
        written = {name: value for name, value in dotenv_values(".env").items() if value}
        given = written | {name: value for name, value in os.environ.items() if value}
        return cls(
            home=Path(given.get("KHESHT_HOME", ".khesht")),
            gateway_port=_port(given, "GATEWAY_PORT", 8000),
            grpc_port=_port(given, "GRPC_PORT", 8443),
            cors_origins=given.get("CORS_ORIGINS", "*"),
            database_url=_database_url(given),
            secret_key=given.get("SECRET_KEY"),
            environment=given,
        )


def _port(given: Mapping[str, str], variable: str, default: int) -> int:
    value = given.get(variable, str(default))
    if not value.isdigit() or not 1 <= int(value) <= 65535:
        raise LocalError(f"{variable} is {value!r}; a port is a number from 1 to 65535")
    return int(value)


def _database_url(given: Mapping[str, str]) -> str | None:
    url = given.get("DATABASE_URL")
    if url and not url.startswith(("postgresql://", "postgres://")):
        raise LocalError("DATABASE_URL must start with postgresql://")
    if url or "DB_HOST" not in given:
        return url
    missing = [name for name in ("DB_USER", "DB_PASSWORD", "DB_NAME") if name not in given]
    if missing:
        raise LocalError(f"{missing[0]} is needed beside DB_HOST")
    place = f"{given['DB_HOST']}:{given.get('DB_PORT', '5432')}"
    return f"postgresql://{given['DB_USER']}:{given['DB_PASSWORD']}@{place}/{given['DB_NAME']}"
