"""The folder of a mesh, its lock and its secrets, and the ports people choose."""

import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.local.errors import LocalError
from mesh.local.home import Home, find_home, holder, locked, master_secret, open_home
from mesh.local.ports import claim, free_ports
from mesh.secrets import derive


def test_a_new_home_is_private(home: Home) -> None:
    rooms = [home.root, *(p for p in home.root.iterdir() if p.is_dir())]

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in rooms}

    names = ("home", "postgres", "certs", "logs", "run", "secrets")
    assert modes == dict.fromkeys(names, 0o700)


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    open_home(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.parametrize("reach", [open_home, find_home])
def test_a_home_that_is_a_file_is_refused_by_name(
    tmp_path: Path, reach: Callable[[Path], Home]
) -> None:
    path = tmp_path / "file"
    path.touch()

    with pytest.raises(LocalError, match=f"KHESHT_HOME {path} cannot be used"):
        reach(path)


def test_nobody_holds_a_home_that_is_missing(tmp_path: Path) -> None:
    home = find_home(tmp_path / "none")

    assert holder(home) is None
    assert not home.root.exists()


def test_nobody_holds_a_home_before_and_after(home: Home) -> None:
    before = holder(home)
    with locked(home):
        pass

    assert (before, holder(home)) == (None, None)


def test_the_generated_secret_is_private_and_stays(home: Home) -> None:
    first = master_secret(home, None)

    mode = stat.S_IMODE((home.secrets / "secret_key").stat().st_mode)
    assert (master_secret(home, None), mode) == (first, 0o600)
    assert len(first) >= 43


def test_a_given_secret_wins_over_the_generated(home: Home) -> None:
    master_secret(home, None)

    assert master_secret(home, "g" * 32) == "g" * 32


def test_a_short_given_secret_is_refused_by_variable(home: Home) -> None:
    with pytest.raises(LocalError, match="SECRET_KEY has 31 characters") as refusal:
        master_secret(home, "g" * 31)

    assert "ggg" not in str(refusal.value)


def test_a_short_stored_secret_is_refused_by_file(home: Home) -> None:
    path = home.secrets / "secret_key"
    path.write_text("short\n")

    with pytest.raises(LocalError, match=f"{path} has 5 characters"):
        master_secret(home, None)


def test_derived_secrets_differ_by_purpose_and_by_master() -> None:
    derived = {derive(m, p) for m in ("a" * 32, "b" * 32) for p in ("one", "two")}

    assert len(derived) == 4
    assert derive("a" * 32, "one") in derived


def test_free_ports_are_different_and_can_be_listened_on() -> None:
    ports = free_ports(10)

    assert len(set(ports)) == 10
    for port in ports:
        claim(port, "ANY")


def test_a_taken_port_is_named_with_its_variable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(LocalError) as refusal:
            claim(port, "GATEWAY_PORT")

    expected = f"GATEWAY_PORT {port} is taken; set GATEWAY_PORT to another"
    assert str(refusal.value) == expected
