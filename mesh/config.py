"""Settings of a process: read once from the environment, frozen, or refused.

Every setting is a variable; one that holds a secret may instead be a file, named
by the variable with `_FILE` behind it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from mesh.tls import Certificate

Address = Annotated[str, Field(pattern=r"^[^:\s]+:\d{1,5}(,[^:\s]+:\d{1,5})*$")]


class ConfigError(Exception):
    """The settings are wrong. The text names each variable and what is wrong with it."""


class Settings(BaseModel):
    """What the settings of any process have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_env: Literal["development", "test", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """The settings that `environment` holds. Raises ConfigError."""
        values: dict[str, str] = {}
        for name in cls.model_fields:
            variable = name.upper()
            if environment.get(variable):
                values[name] = environment[variable]
            elif path := environment.get(f"{variable}_FILE"):
                values[name] = _read(f"{variable}_FILE", path)
        try:
            return cls.model_validate(values)
        except ValidationError as wrong:
            lines = [
                f"{'.'.join(str(part) for part in each['loc']).upper()}: {each['msg']}"
                for each in wrong.errors(include_url=False, include_input=False)
            ]
            raise ConfigError("\n".join(lines)) from None

    @property
    def production(self) -> bool:
        """Whether real people depend on this installation."""
        return self.app_env == "production"


class ServiceSettings(Settings):
    """What the settings of every service have in common.

    `listen` is host:port, port 0 for any free one. An address of another service
    is host:port, or several of them with commas between.
    """

    listen: Annotated[str, Field(pattern=r"^[^:\s]+:\d{1,5}$")]
    tls_cert_file: Path
    tls_key_file: Path
    tls_ca_file: Path
    auth_address: Address
    keys_address: Address
    database_url: SecretStr
    secret_key: SecretStr
    # Seconds for which calls are still taken while health says NOT_SERVING: the
    # edge looks every second and needs one failure.
    lame_duck: Annotated[float, Field(ge=0, le=60)] = 2.5

    def check(self) -> None:
        """Looks at what the settings name, such as files. Raises ConfigError."""

    @property
    def certificate(self) -> Certificate:
        """The certificate in the files. Raises OSError."""
        return Certificate.read(self.tls_cert_file, self.tls_key_file, self.tls_ca_file)

    @field_validator("secret_key")
    @classmethod
    def _long_enough(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{variable}: can't read {path}: {error.strerror}") from None
