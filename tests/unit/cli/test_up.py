"""What `khesht up` says when all is ready, and while it stops."""

from pathlib import Path

import pytest

from cli import topology, up
from cli.settings import LocalSettings


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing set but what a test sets."""
    monkeypatch.chdir(tmp_path)
    for variable in ("KHESHT_HOME", "GATEWAY_PORT", "GRPC_PORT", "EDGE_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)


def hints() -> list[str]:
    """The lines about other commands, as they are printed."""
    lines = up._welcome(LocalSettings.read(), 1.0).splitlines()
    return [line for line in lines if ".venv/bin/khesht" in line]


def test_a_mesh_without_settings_is_talked_to_by_commands_alone():
    assert hints() == [
        "  .venv/bin/khesht chat        talk to a model over gRPC",
        "  .venv/bin/khesht status      what runs, and how it is",
    ]


def test_what_another_terminal_can_not_know_is_printed_before_its_commands(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("KHESHT_HOME", "/tmp/a b")
    monkeypatch.setenv("GRPC_PORT", "8543")
    assert hints() == [
        "  GRPC_PORT=8543 .venv/bin/khesht chat                talk to a model over gRPC",
        "  KHESHT_HOME='/tmp/a b' .venv/bin/khesht status      what runs, and how it is",
    ]


def test_what_is_written_for_every_terminal_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / ".env").write_text("KHESHT_HOME=there\nGRPC_PORT=8543\n")
    assert not any("=" in line for line in hints())
    monkeypatch.setenv("GRPC_PORT", "8443")  # The default, and yet not what the file says.
    assert ["GRPC_PORT=8443 " in line for line in hints()] == [True, False]


def test_a_mesh_that_speaks_tls_is_talked_to_by_tls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name in ("CERT", "KEY"):
        (tmp_path / name).touch()
        monkeypatch.setenv(f"EDGE_TLS_{name}_FILE", str(tmp_path / name))
    assert ["khesht chat --tls " in line for line in hints()] == [True, False]


def test_the_time_that_replies_have_is_the_one_that_is_promised():
    time = up._STOPPING.partition("replies that run have ")[2]
    assert time
    assert f"finished first, for {time} at most" in (topology.ROOT / "README.md").read_text()
