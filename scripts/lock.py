"""Writes requirements.lock and requirements-dev.lock, for every interpreter that khesht runs on.

A lock holds versions, markers and the hashes of all files, in pip's format, and no addresses.
"""

import subprocess
import sys
import tempfile

LOCKS = ("requirements", "requirements-dev")
# 3.11.3 is here because packages ask for it: `redis` wants async-timeout below.
PYTHONS = ("3.11.0", "3.11.3", "3.12", "3.13", "3.14")
# The wheel of Envoy is the one that wants the newest glibc.
PLATFORMS = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31")
COMPILE = (
    *("compile", "--universal", "--python-version", PYTHONS[0], "--no-build"),
    *("--generate-hashes", "--no-annotate", "--no-header"),
)
INSTALL = ("install", "--dry-run", "--no-deps", "--require-hashes", "--only-binary", ":all:")


def main() -> None:
    """Resolves both, keeping versions that are locked already where they still fit.

    Exits with uv's status when a locked package has no wheel for one of `PYTHONS` on one of
    `PLATFORMS`; uv names the package, and the lock is to be put back.
    """
    for name in LOCKS:
        # The second holds to the first: one version of each package in both.
        known = () if name == LOCKS[0] else ("--constraints", f"{LOCKS[0]}.lock")
        _uv(*COMPILE, *known, "--output-file", f"{name}.lock", f"{name}.in")
    with tempfile.TemporaryDirectory() as nowhere:
        for python in PYTHONS:
            for platform in PLATFORMS:
                print(f"wheels for {python} on {platform}")
                _uv(
                    *(*INSTALL, "--target", nowhere, "-r", f"{LOCKS[1]}.lock"),
                    *("--python-version", python, "--python-platform", platform),
                )


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", "pip", *arguments, "--quiet"]
    status = subprocess.run(command).returncode
    if status != 0:
        sys.exit(status)


if __name__ == "__main__":
    main()
