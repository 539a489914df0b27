"""Writes requirements.lock and requirements-dev.lock: versions and hashes, no addresses."""

import subprocess
import sys

FLAGS = (
    *("--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-annotate", "--no-header"),
    *("--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links", "--quiet"),
)


def main() -> None:
    """Resolves both, keeping versions that are locked already where they still fit."""
    for name in ("requirements", "requirements-dev"):
        command = [sys.executable, "-m", "piptools", "compile", *FLAGS]
        subprocess.run([*command, "-o", f"{name}.lock", f"{name}.in"], check=True)


if __name__ == "__main__":
    main()
