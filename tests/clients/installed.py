"""Clients as their users install them: each Python package in an environment of its own, from a
lock with hashes, and Node's in one folder, from npm's lock. Node itself comes as a wheel."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".clients"
_PIP = ("--disable-pip-version-check", "--quiet", "--require-hashes", "--only-binary", ":all:")


def python(name: str) -> Path:
    """The interpreter of an environment that has `locks/<name>.lock`, made when it isn't there."""
    lock, folder = HERE / "locks" / f"{name}.lock", INSTALLED / name
    interpreter = folder / "bin" / "python"
    if not _is_made(folder, lock):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", *_PIP, "-r", str(lock)], check=True)
        _note(folder, lock)
    return interpreter


def programs(name: str) -> Path:
    """The folder of the programs in that environment."""
    return python(name).parent


def node() -> Path:
    """A folder whose `node_modules` are those of `node/package-lock.json`, made when it isn't there."""
    lock, folder, bin = HERE / "node" / "package-lock.json", INSTALLED / "modules", programs("node")
    if not _is_made(folder, lock):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / "node" / name, folder)
        npm = (bin / "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
        path = f"{bin}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(npm, cwd=folder, check=True, env=os.environ | {"PATH": path})
        _note(folder, lock)
    return folder


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()


def _is_made(folder: Path, lock: Path) -> bool:
    note = folder / "installed"
    return note.exists() and note.read_text() == _digest(lock)


def _note(folder: Path, lock: Path) -> None:
    (folder / "installed").write_text(_digest(lock))
