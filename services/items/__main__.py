"""Runs items: `python -m services.items`."""

from mesh import process
from services.items import wiring
from services.items.config import Config

if __name__ == "__main__":
    process.run("items", Config, wiring.build)
