"""Runs chat: `python -m services.chat`."""

from mesh import process
from services.chat import wiring
from services.chat.config import Config

if __name__ == "__main__":
    process.run("chat", Config, wiring.build)
