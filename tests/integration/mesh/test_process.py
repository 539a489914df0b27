"""A service's process with wrong settings: it ends before it opens anything."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.local import certificates

ROOT = Path(__file__).parents[3]
SECRET = "canary-of-a-secret-in-the-environment"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> certificates.Identity:
    folder: Path = tmp_path_factory.mktemp("certificates")
    return certificates.issue(folder, ["items"])["items"]


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that a process which went on to bind it would complain about."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def good(files: certificates.Identity, listen: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "gen" / "python"))),
        "LISTEN": listen,
        "TLS_CERT_FILE": str(files.cert),
        "TLS_KEY_FILE": str(files.key),
        "TLS_CA_FILE": str(files.ca),
        "AUTH_ADDRESS": "127.0.0.1:1",
        "KEYS_ADDRESS": "127.0.0.1:1",
        "DATABASE_URL": f"postgresql://items:{SECRET}@127.0.0.1:1/khesht",
        "SECRET_KEY": SECRET,
    }


async def run(environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.items"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    return process.returncode, output.decode(), errors.decode()


async def test_wrong_settings_end_the_process_with_2_before_it_binds(files, taken):
    wrong = {"LAME_DUCK": "-1", "TLS_KEY_FILE": str(files.ca), "TLS_CERT_FILE": "/missing"}
    settings = good(files, taken)
    answers = await asyncio.gather(*(run({**settings, name: wrong[name]}) for name in wrong))
    for name, (code, output, errors) in zip(wrong, answers, strict=True):
        assert (code, output) == (2, ""), errors
        assert errors.startswith("items: wrong settings\n")
        assert name in errors
        assert "Traceback" not in errors
        assert taken not in errors
        assert SECRET not in errors


async def test_right_settings_go_on_to_bind(files, taken):
    """The control of the test above."""
    code, output, errors = await run(good(files, taken))
    assert code not in (0, 2)
    assert f"LISTEN: {taken} is taken" in errors
    assert SECRET not in output + errors
