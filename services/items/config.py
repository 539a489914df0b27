"""Settings of items: those of every service."""

from mesh.config import ServiceSettings


class Config(ServiceSettings):
    """What items is told at start."""
