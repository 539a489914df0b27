"""Settings of auth."""

from typing import Annotated

from pydantic import Field

from mesh.config import RotatedSecret


class Config(RotatedSecret):
    """What auth is told at start.

    `secret_key_previous` is the `secret_key` of before: what it signed is taken
    until it expires. It may be dropped after `refresh_token_days`.
    """

    access_token_seconds: Annotated[int, Field(ge=300, le=3600)] = 900
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    # Failed logins until further ones are refused: of an account from one address in 15
    # minutes, from one address in an hour, and of an account from all the addresses that it was
    # never logged in to from in an hour (NIST SP 800-63B-4, section 3.2.2: at most 100).
    login_failures_per_account: Annotated[int, Field(ge=1, le=100)] = 10
    login_failures_per_address: Annotated[int, Field(ge=1, le=100_000)] = 100
    login_failures_of_strangers: Annotated[int, Field(ge=1, le=100)] = 100
    # Registrations from one address in an hour.
    registrations_per_address: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000
