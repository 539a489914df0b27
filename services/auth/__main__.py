"""Runs auth: `python -m services.auth`."""

from mesh import process
from services.auth import wiring
from services.auth.config import Config

if __name__ == "__main__":
    process.run("auth", Config, wiring.build)
