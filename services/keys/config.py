"""Settings of keys: those of every service, and the default limit."""

from typing import Annotated

from pydantic import Field

from mesh.config import ServiceSettings


class Config(ServiceSettings):
    """What keys is told at start."""

    # Calls to models a minute: of an account by access token, and of a key that
    # was made without a limit of its own.
    rate_limit_per_minute: Annotated[int, Field(ge=1, le=100_000)] = 60
