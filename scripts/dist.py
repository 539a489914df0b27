"""Builds the wheel of the client: the stubs, their types, and the image of descriptors.

python scripts/dist.py [folder]     # dist/, if none is named
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Exits with pip's status when it can't be built."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("client/pyproject.toml", "client/README.md", "LICENSE"):
            shutil.copy(ROOT / file, folder)
        # Services among themselves are nobody else's.
        ignored = shutil.ignore_patterns("__pycache__", "*_internal_service_pb2*")
        shutil.copytree(ROOT / "gen/python/khesht", folder / "khesht", ignore=ignored)
        shutil.copy(ROOT / "gen/khesht.binpb", folder / "khesht")
        into = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "dist")
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        how = ["--no-deps", "--no-build-isolation", "--wheel-dir", into]
        done = subprocess.run([*pip, *how, name])
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
