"""Runs keys: `python -m services.keys`."""

from mesh import process
from services.keys import wiring
from services.keys.config import Config

if __name__ == "__main__":
    process.run("keys", Config, wiring.build)
