"""What `khesht` answers in a folder in which no mesh runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.described import ROOT

Khesht = Callable[..., tuple[int, str]]


@pytest.fixture
def khesht(tmp_path: Path) -> Khesht:
    """Runs a command in an empty folder: its exit status, and all that it said."""
    path = os.pathsep.join(str(each) for each in (ROOT, ROOT / "gen" / "python"))

    def run(*arguments: str, **settings: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    return run


def test_each_setting_that_is_wrong_is_named_once_whoever_reads_it(khesht: Khesht) -> None:
    wrong = {
        "GATEWAY_PORT": "80o0",
        "WORKERS": "-1",
        "SECRET_KEY": "short",
        "LOG_LEVEL": "verbose",
        "DEBUG": "maybe",
        "RATE_LIMIT_PER_MINUTE": "0",
    }
    code, output = khesht("check-config", **wrong)
    assert code == 2
    assert [line.replace(":", " ").split()[0] for line in output.splitlines()] == list(wrong)


def test_what_the_edge_refuses_is_named_beside_what_a_service_does(
    khesht: Khesht, tmp_path: Path
) -> None:
    (tmp_path / "none.pem").touch()
    files = dict.fromkeys(("EDGE_TLS_CERT_FILE", "EDGE_TLS_KEY_FILE"), str(tmp_path / "none.pem"))
    code, output = khesht("check-config", RATE_LIMIT_PER_MINUTE="0", **files)
    assert code == 2
    assert "RATE_LIMIT_PER_MINUTE: " in output
    assert "Envoy refuses" in output


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("status", 1, "no mesh runs in {home}"),
        ("down", 0, "no mesh runs in {home}"),
        ("audit", 2, "no mesh runs in {home}, and DATABASE_URL is not set"),
    ],
)
def test_looking_for_a_mesh_makes_nothing(
    khesht: Khesht, tmp_path: Path, command: str, status: int, said: str
) -> None:
    home = tmp_path / ".khesht"
    assert khesht(command) == (status, said.format(home=home) + "\n")
    assert not home.exists()
    home.mkdir()
    assert khesht(command) == (status, said.format(home=home) + "\n")
    assert list(home.iterdir()) == []
