"""The locks, against what the metadata of every locked package asks for on each interpreter.

Metadata is read where it is installed: in this environment. A package that is locked for other
interpreters alone is not installed and so not read here; CI runs this on the oldest interpreter
and on the newest, so that each is read on one of them.
"""

import json
import re
from dataclasses import dataclass
from importlib import metadata
from itertools import product

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.contract.described import ROOT

PYTHONS = ("3.11.0", "3.11.2", "3.11.7", "3.12.0", "3.13.0", "3.14.0")
MACHINES = ("x86_64", "aarch64")
LOCKS = ("requirements", "requirements-dev")
# What no interpreter of khesht installs: uv locks it for other systems.
ELSEWHERE = {"colorama", "httpx2-jsfetch"}
# What some interpreters do without, and CI reads on another.
SOMETIMES = {"async-timeout"}
_PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\$", re.M)


@dataclass(frozen=True)
class Pinned:
    """A package of a lock: its version, and where it is installed."""

    version: str
    marker: Marker | None

    def is_for(self, environment: dict[str, str]) -> bool:
        return self.marker is None or self.marker.evaluate(environment)


def environment(python: str, machine: str) -> dict[str, str]:
    """What markers see under CPython on Linux."""
    return {
        **{name: str(value) for name, value in default_environment().items()},
        **{"implementation_name": "cpython", "implementation_version": python},
        **{"python_full_version": python, "python_version": python.rpartition(".")[0]},
        **{"platform_machine": machine, "platform_python_implementation": "CPython"},
        **{"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"},
    }


def locked(text: str) -> dict[str, Pinned]:
    """The packages of a lock, by name."""
    found = {
        name: Pinned(version, Marker(marker) if marker else None)
        for name, version, marker in _PINNED.findall(text)
    }
    assert len(found) == len(re.findall(r"^\S", text, re.M)), "a line of the lock is not understood"
    return found


def roots(name: str) -> list[Requirement]:
    """What `<name>.in` asks for, with what it includes."""
    asked = []
    for line in (ROOT / f"{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            asked += roots(line.removeprefix("-r ").removesuffix(".in"))
        elif not line.startswith("#"):
            asked.append(Requirement(line))
    return asked


def installed(name: str) -> metadata.PackageMetadata | None:
    """The metadata of a package, if it is here."""
    try:
        return metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return None


def missing(
    lock: dict[str, Pinned], asked: list[Requirement], where: dict[str, str]
) -> tuple[set[str], set[str]]:
    """What is asked for in the environment `where` and not locked for it; and what was read.

    Goes from the requirements `asked` along the metadata, extras included.
    """
    wrong: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [("the project", each, "") for each in asked]
    while waiting:
        who, wanted, extra = waiting.pop()
        if wanted.marker is not None and not wanted.marker.evaluate({**where, "extra": extra}):
            continue
        name = canonicalize_name(wanted.name)
        pinned = lock.get(name)
        if pinned is None or not pinned.is_for(where):
            wrong.add(f"{who} wants {wanted}")
            continue
        if not wanted.specifier.contains(pinned.version, prereleases=True):
            wrong.add(f"{who} wants {wanted}, not {pinned.version}")
        told = installed(name)
        for its in {"", *wanted.extras} if told is not None else ():
            if (name, its) not in seen:
                seen.add((name, its))
                requires = told.get_all("Requires-Dist") or []
                waiting += [(name, Requirement(each), its) for each in requires]
    return wrong, {name for name, _ in seen}


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize(("python", "machine"), list(product(PYTHONS, MACHINES)))
def test_a_lock_has_all_that_is_asked_for(name: str, python: str, machine: str):
    lock, where = locked((ROOT / f"{name}.lock").read_text()), environment(python, machine)
    wrong, read = missing(lock, roots(name), where)
    assert not wrong
    needed = {each for each, pinned in lock.items() if pinned.is_for(where)}
    assert needed - read <= SOMETIMES, "locked and not installed here, or asked for by nothing"


@pytest.mark.parametrize("name", LOCKS)
def test_what_is_locked_is_what_is_installed(name: str):
    lock, here = (
        locked((ROOT / f"{name}.lock").read_text()),
        environment(
            default_environment()["python_full_version"], default_environment()["platform_machine"]
        ),
    )
    for each, pinned in lock.items():
        if pinned.is_for(here):
            assert metadata.version(each) == pinned.version
        else:
            assert each in ELSEWHERE | SOMETIMES


@pytest.mark.parametrize("python", PYTHONS)
def test_every_locked_package_allows_the_interpreter(python: str):
    lock = locked((ROOT / "requirements-dev.lock").read_text())
    for each, pinned in lock.items():
        told = installed(each)
        if told is not None and pinned.is_for(environment(python, MACHINES[0])):
            for allowed in told.get_all("Requires-Python") or []:
                assert Requirement(f"python{allowed}").specifier.contains(python), each


def test_both_locks_hold_the_same_versions():
    runtime, tools = (locked((ROOT / f"{name}.lock").read_text()) for name in LOCKS)
    assert {name: tools[name].version for name in runtime} == {
        name: pinned.version for name, pinned in runtime.items()
    }


CLIENTS = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/clients/locks/*.lock")]


@pytest.mark.parametrize("name", [*(f"{each}.lock" for each in LOCKS), *CLIENTS])
def test_a_lock_names_files_by_hash_and_no_address(name: str):
    text = (ROOT / name).read_text()
    hashes = re.findall(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$", text, re.M)
    pins = re.findall(r"^[a-z0-9._-]+==[\w.+!]+(?: ; [\w .'=<>!()]+)? \\$", text, re.M)
    assert len(hashes) + len(pins) == len(text.splitlines())
    assert not (ROOT / "uv.lock").exists()


def test_the_lock_of_node_names_files_by_hash_and_no_address():
    text = (ROOT / "tests/clients/node/package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert all("integrity" in each for path, each in packages.items() if path)
    assert "://" not in text


def test_a_lock_of_one_interpreter_is_seen():
    """The former lock: made on 3.11.7, where `redis` wants nothing more."""
    lock = locked((ROOT / "requirements.lock").read_text())
    del lock["async-timeout"]
    wrong, _ = missing(lock, roots("requirements"), environment("3.11.2", "x86_64"))
    assert [each.partition(" wants ")[0] for each in wrong] == ["redis"]
    wrong, _ = missing(lock, roots("requirements"), environment("3.11.7", "x86_64"))
    assert not wrong


def test_extras_are_followed():
    lock = locked((ROOT / "requirements.lock").read_text())
    del lock["psycopg-binary"], lock["greenlet"]
    wrong, _ = missing(lock, roots("requirements"), environment("3.13.0", "aarch64"))
    assert {each.partition(" wants ")[0] for each in wrong} >= {"psycopg", "sqlalchemy"}
