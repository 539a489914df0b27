"""Settings of usage: those of every service."""

from mesh.config import ServiceSettings


class Config(ServiceSettings):
    """What usage is told at start."""
