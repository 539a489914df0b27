"""Runs a worker of background tasks: `python -m services.chat.worker`."""

from mesh import process
from services.chat import wiring
from services.chat.config import Config

if __name__ == "__main__":
    process.run("worker", Config, wiring.build_worker)
