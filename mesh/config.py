"""Settings of a process: read once from the environment, frozen, or refused.

Every setting is a variable; one that holds a secret may instead be a file, named
by the variable with `_FILE` behind it.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from mesh.tls import Certificate


def _with_possible_ports(addresses: str) -> str:
    # gRPC would take the port modulo 65536.
    if any(int(each.rpartition(":")[2]) > 65535 for each in addresses.split(",")):
        raise ValueError("has a port above 65535")
    return addresses


Address = Annotated[
    str,
    Field(pattern=r"^[^:\s]+:\d{1,5}(,[^:\s]+:\d{1,5})*$"),
    AfterValidator(_with_possible_ports),
]


class ConfigError(Exception):
    """The settings are wrong. The text names each variable and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Calls that a process serves at once, and the part of them that one account may have.

    A stream is ended whose reader takes nothing for `reader_timeout` seconds. Fields that a
    message has not are refused, or named in a header. A request has `request_bytes` at most, and
    those that are large have `large_requests_bytes` together.
    """

    calls: int = 1_024
    account_share: float = 0.25
    reader_timeout: float = 60.0
    unknown_fields: Literal["refuse", "warn"] = "refuse"
    request_bytes: int = 1 << 20
    large_requests_bytes: int = 48 << 20


DEFAULT_CALL_LIMITS = CallLimits()


class Settings(BaseModel):
    """What the settings of any process have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_env: Literal["development", "test", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    debug: bool = False

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """The settings that `environment` holds. Raises ConfigError."""
        values: dict[str, str] = {}
        for name in cls.model_fields:
            if given := setting(environment, name.upper()):
                values[name] = given
        try:
            return cls.model_validate(values)
        except ValidationError as wrong:
            lines = [
                f"{'.'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
                for each in wrong.errors(include_url=False, include_input=False)
            ]
            raise ConfigError("\n".join(lines)) from None

    @property
    def level(self) -> str:
        """From which level on there are logs."""
        return "DEBUG" if self.debug else self.log_level

    @property
    def production(self) -> bool:
        """Whether real people depend on this installation."""
        return self.app_env == "production"


class ServiceSettings(Settings):
    """What the settings of every service have in common.

    `listen` is host:port, port 0 for any free one. An address of another service
    is host:port, or several of them with commas between.
    """

    listen: Annotated[
        str, Field(pattern=r"^[^:\s]+:\d{1,5}$"), AfterValidator(_with_possible_ports)
    ]
    tls_cert_file: Path
    tls_key_file: Path
    tls_ca_file: Path
    auth_address: Address
    keys_address: Address
    database_url: SecretStr
    secret_key: SecretStr
    # Connections of one process to the database; keys has one more, a chat 3, a worker 8.
    database_connections: Annotated[int, Field(ge=1, le=200)] = 10
    # Seconds for which calls are still taken while health says NOT_SERVING: the
    # edge looks every second and needs two failures.
    lame_duck: Annotated[float, Field(ge=0, le=60)] = 3.5

    # Calls of accounts that a process serves at once. The edge lets 4,096 through to a service.
    call_limit: Annotated[int, Field(ge=16, le=2_000)] = DEFAULT_CALL_LIMITS.calls
    # The part of them that one account may have while nobody else calls.
    account_share: Annotated[float, Field(ge=0.01, le=0.5)] = DEFAULT_CALL_LIMITS.account_share
    # Seconds for which the reader of a stream may take nothing.
    reader_timeout: Annotated[float, Field(ge=1, le=60)] = DEFAULT_CALL_LIMITS.reader_timeout
    # What becomes of a JSON body with a field that its message has not.
    unknown_fields: Literal["refuse", "warn"] = DEFAULT_CALL_LIMITS.unknown_fields

    @property
    def call_limits(self) -> CallLimits:
        """What keeps one caller from taking all of this process."""
        return CallLimits(
            self.call_limit, self.account_share, self.reader_timeout, self.unknown_fields
        )

    def check(self) -> list[str]:
        """Looks at what the settings name, such as files, and says what may be a mistake.

        Raises ConfigError for what is one.
        """
        _ = self.certificate
        return []

    @property
    def certificate(self) -> Certificate:
        """The certificate in the files. Raises ConfigError."""
        for name in ("tls_cert_file", "tls_key_file", "tls_ca_file"):
            _read(name.upper(), getattr(self, name))
        reader = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            reader.load_cert_chain(self.tls_cert_file, self.tls_key_file, password="")
        except ssl.SSLError:
            raise ConfigError(
                f"TLS_CERT_FILE, TLS_KEY_FILE: {self.tls_cert_file} and {self.tls_key_file} "
                "are not a certificate and its key"
            ) from None
        try:
            reader.load_verify_locations(self.tls_ca_file)
        except ssl.SSLError:
            raise ConfigError(f"TLS_CA_FILE: {self.tls_ca_file} holds no certificate") from None
        return Certificate.read(self.tls_cert_file, self.tls_key_file, self.tls_ca_file)

    @field_validator("database_url")
    @classmethod
    def _of_postgresql(cls, value: SecretStr) -> SecretStr:
        try:
            scheme = make_url(value.get_secret_value()).drivername
        except (ArgumentError, ValueError):
            scheme = ""
        if scheme != "postgresql":
            raise ValueError("must be postgresql://user:password@host:port/name")
        return value

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        return _long(value)


class RotatedSecret(ServiceSettings):
    """Settings of a service that still reads what it made with the `secret_key` of before."""

    secret_key_previous: SecretStr | None = None

    @field_validator("secret_key_previous")
    @classmethod
    def _as_long(cls, value: SecretStr | None) -> SecretStr | None:
        return value and _long(value)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets to accept the work of; the first one is the one to work with."""
        both = (self.secret_key, self.secret_key_previous)
        return tuple(secret.get_secret_value() for secret in both if secret)


def _long(value: SecretStr) -> SecretStr:
    if len(value.get_secret_value()) < 32:
        raise ValueError("must have at least 32 characters")
    return value


def setting(environment: Mapping[str, str], variable: str) -> str:
    """The value of `variable`, or what is in the file that it names with `_FILE`; "" for none.

    Raises ConfigError for a file that can't be read.
    """
    if given := environment.get(variable):
        return given
    path = environment.get(f"{variable}_FILE")
    return _read(f"{variable}_FILE", path) if path else ""


def _read(variable: str, path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{variable}: can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: {path} is not text in UTF-8") from None
