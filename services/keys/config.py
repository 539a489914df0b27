"""Settings of keys: those of every service, and the default limits."""

from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from mesh.config import RotatedSecret


class Config(RotatedSecret):
    """What keys is told at start.

    `secret_key_previous` is the `secret_key` of before: what it encrypted can still be
    read. Digests of API keys are made with the present one alone.
    """

    # Calls to models a minute: of an account by access token, and of a key that
    # was made without a limit of its own.
    rate_limit_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
    # Tokens a minute of an account by access token; None are not counted.
    token_limit_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    # Keys that an account may have, besides revoked and expired ones.
    keys_per_account: Annotated[int, Field(ge=1, le=100_000)] = 500
    # Where replicas count limits together: redis://…, rediss://… or unix://…
    redis_url: SecretStr | None = None
    # How many there are: each one's share of a limit while Redis does not answer.
    keys_replicas: Annotated[int, Field(ge=1, le=100)] = 1

    @field_validator("redis_url")
    @classmethod
    def _of_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must be redis://host:port/number, rediss://… or unix://…")
        return value

    @field_validator("keys_replicas")
    @classmethod
    def _counted_together(cls, value: int, others: ValidationInfo) -> int:
        if value > 1 and not others.data.get("redis_url"):
            raise ValueError(
                "more than 1 needs REDIS_URL: each replica would allow the whole of every limit"
            )
        return value
