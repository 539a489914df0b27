"""What `khesht` answers in a folder in which no mesh runs."""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from mesh.local.ports import free_ports
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


def test_the_version_is_that_of_the_package(khesht: Khesht) -> None:
    code, output = khesht("--version")
    assert code == 0
    assert output == f"khesht {version('khesht-mesh')} on Python {platform.python_version()}\n"


def test_the_terminal_client_without_a_server_says_how_to_come_by_one(khesht: Khesht) -> None:
    (port,) = free_ports(1)
    for arguments, settings in (
        ((), {"GRPC_PORT": str(port)}),
        (("--address", f"127.0.0.1:{port}"), {}),
        (("--address", f"127.0.0.1:{port}", "--tls"), {}),
    ):
        code, output = khesht("chat", "--username", "ada", *arguments, **settings)
        assert code == 2, output
        assert f":{port}" in output
        assert "make run" in output
        assert "--address" in output
        assert "password>" not in output


def test_the_terminal_client_knows_a_server_that_is_no_khesht(khesht: Khesht) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        accepting = threading.Thread(target=answer_http_1, args=(silent,), daemon=True)
        accepting.start()
        code, output = khesht("chat", "--username", "ada", "--address", address)
    assert code == 2, output
    assert address in output
    assert "--address" in output
    assert "password>" not in output


def answer_http_1(server: socket.socket) -> None:
    """Answers every connection as a web server of the old kind."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def test_the_terminal_client_names_the_models_that_there_are(khesht: Khesht) -> None:
    code, output = khesht("chat", "--username", "ada", "--model", "nope")
    assert code == 2, output
    assert output.startswith("no model nope in ")
    assert "echo" in output
    assert "password>" not in output
