"""Runs usage: `python -m services.usage`."""

from mesh import process
from services.usage import wiring
from services.usage.config import Config

if __name__ == "__main__":
    process.run("usage", Config, wiring.build)
