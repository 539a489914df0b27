"""Settings of auth."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from mesh.config import ServiceSettings


class Config(ServiceSettings):
    """What auth is told at start.

    `secret_key_previous` is the `secret_key` of before: what it signed is taken
    until it expires. It may be dropped after `refresh_token_days`.
    """

    secret_key_previous: SecretStr | None = None
    access_token_seconds: Annotated[int, Field(ge=300, le=3600)] = 900
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    # Failed logins until further ones are refused: by account in 15 minutes, by
    # client address in an hour.
    login_failures_per_account: Annotated[int, Field(ge=1, le=100)] = 10
    login_failures_per_address: Annotated[int, Field(ge=1, le=100_000)] = 100

    @field_validator("secret_key_previous")
    @classmethod
    def _as_long_as_a_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets to accept the work of; the first one is the one to work with."""
        both = (self.secret_key, self.secret_key_previous)
        return tuple(secret.get_secret_value() for secret in both if secret)
