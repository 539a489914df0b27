"""Settings of keys: those of every service, and the default limits."""

from typing import Annotated

from pydantic import Field

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
