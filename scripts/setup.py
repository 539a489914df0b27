"""Makes .venv what the locks say, and says how far it is: `setup.py <folder> runtime|dev`.

Runs on the interpreter that .venv is to have, with the standard library alone. What is there
stays if it is whole, of this interpreter and of this folder; else it is made anew.
"""

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"runtime": "requirements.lock", "dev": "requirements-dev.lock"}
OLDEST, NEWEST = (3, 11), (3, 14)
MACHINES = ("x86_64", "aarch64")
# What an installation takes, with what pip unpacks on the way, rounded up.
NEEDED_MB = {"runtime": 600, "dev": 900}
LIVE_INTERVAL_S, PLAIN_INTERVAL_S = 0.2, 5.0
# Settings of pip that would put packages elsewhere, or fetch what the lock does not allow.
REFUSED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_NO_BINARY", "PIP_REQUIREMENT")
REFUSED += ("PIP_CONSTRAINT", "PIP_QUIET", "PYTHONHOME", "PYTHONPATH")

# By what pip says: what went wrong, and what to do. The first that fits is told.
REMEDIES = (
    (
        r"No space left|Errno 28|Disk quota|Errno 122",
        "the disk is full. Free some space, or point TMPDIR at another disk",
    ),
    (
        r"DO NOT MATCH THE HASHES",
        "a file is not the one that the lock names. A cache or a mirror may hold another: "
        "try again with PIP_NO_CACHE_DIR=1; if it stays so, do not trust the mirror",
    ),
    (
        r"--require-hashes mode",
        "the lock lacks something for this interpreter. Run `git status` to see whether the lock "
        "is the released one, or take another interpreter by PYTHON=",
    ),
    (
        r"SSLError|CERTIFICATE_VERIFY_FAILED|ProxyError|NewConnectionError|Name or service"
        r"|name resolution|Max retries|[Tt]imed out|Connection (?:refused|reset|broken)|unreachable",
        "the package index cannot be reached. Look at the network; a mirror is named by "
        "PIP_INDEX_URL, a proxy by HTTPS_PROXY, an authority of your own by PIP_CERT",
    ),
    (r"Permission denied|Errno 13|Read-only file", "a folder may not be written to; see above"),
    (
        r"No matching distribution|is not a supported wheel",
        "there is no wheel for this machine: khesht needs glibc 2.31 or newer on x86-64 or arm64; "
        "or the package index lacks it: a mirror is named by PIP_INDEX_URL",
    ),
)


class Failed(Exception):
    """A step did not work; the text says what to do."""


class Progress:
    """A line that changes in place on a terminal; elsewhere a new line now and then."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._next = 0.0

    def step(self, text: str) -> None:
        """What begins now."""
        self._print(f"\r\033[K{text}\n" if self._live else f"{text}\n")
        self._next = time.monotonic() + PLAIN_INTERVAL_S

    def so_far(self, text: str) -> None:
        """How far the step is."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._print(f"\r\033[K{f'      {text}'[:width]}")
        elif time.monotonic() >= self._next:
            self._print(f"      {text}\n")
            self._next = time.monotonic() + PLAIN_INTERVAL_S

    def done(self) -> None:
        """Takes the changing line away."""
        if self._live:
            self._print("\r\033[K")

    def _print(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def main(folder: str, kind: str) -> None:
    """Sets up `folder`; exits 1 with what to do when that fails."""
    # Not resolved: where it is a link, the link is what has to be made anew.
    venv, progress = Path(folder).absolute(), Progress()
    try:
        check_machine()
        with one_at_a_time(progress):
            set_up(venv, kind, progress)
    except (Failed, OSError) as wrong:
        progress.done()
        sys.exit(f"khesht cannot be set up: {wrong}")
    except KeyboardInterrupt:
        progress.done()
        sys.exit("stopped; the next run sets up anew")


def check_machine() -> None:
    """Raises Failed on an interpreter or a machine that the locks are not for."""
    version = platform.python_version()
    if not OLDEST <= sys.version_info[:2] <= NEWEST or sys.implementation.name != "cpython":
        others = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
        found = [name for name in others if shutil.which(name)]
        raise Failed(
            f"it needs CPython 3.{OLDEST[1]} to 3.{NEWEST[1]}, and {sys.executable} is "
            f"{platform.python_implementation()} {version}. Say which by make PYTHON=..."
            + (f"; there is {', '.join(found)}" if found else "")
        )
    if sys.platform != "linux" or platform.machine() not in MACHINES:
        here = f"{platform.system()} on {platform.machine()}"
        raise Failed(f"it needs Linux on {' or '.join(MACHINES)}, and this is {here}")


@contextlib.contextmanager
def one_at_a_time(progress: Progress) -> Iterator[None]:
    """Waits for another `make` that sets up the same checkout."""
    with (ROOT / "pyproject.toml").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.step("waiting for another make, which is setting up")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def set_up(venv: Path, kind: str, progress: Progress) -> None:
    """Makes `venv` what the lock of `kind` says, by as few steps as that takes."""
    stamp, lock = venv / "installed.json", ROOT / LOCKS[kind]
    wanted = {
        "python": f"{platform.python_version()} {os.path.realpath(sys.base_prefix)}",
        "venv": str(venv),
    }
    locks = {each: digest(ROOT / name) for each, name in LOCKS.items()}
    project = digest(ROOT / "pyproject.toml")
    known = read(stamp)
    same = all(known.get(name) == value for name, value in wanted.items())
    broken = damage(venv) if same else ""
    whole = same and not broken
    if whole and known.get(kind) == locks[kind] and known.get("project") == project:
        return
    packages = needed(lock)
    progress.step(f"setting up {venv.name} for khesht, once; a few minutes at most")
    if not whole:
        free = shutil.disk_usage(venv.parent).free // 1_000_000
        if free < NEEDED_MB[kind]:
            raise Failed(f"{venv.parent} has {free} MB free, and {NEEDED_MB[kind]} are needed")
        why = f"; of the former {broken} was broken" if broken else ""
        if not same and "python" in known:
            why = f"; the former was {known['python']} in {known.get('venv')}"
        progress.step(f"[1/3] {venv.name} with Python {wanted['python']}{why}")
        make_venv(venv)
    else:
        progress.step(f"[1/3] {venv.name} stays as it is")
        stamp.unlink()
    if not whole or known.get(kind) != locks[kind]:
        progress.step(f"[2/3] the packages of {lock.name}")
        install(venv, progress, packages, "--require-hashes", "--only-binary", ":all:", "-r", lock)
        known = {**(known if whole else {}), kind: locks[kind]}
        if kind == "dev":  # It holds what the mesh runs on too.
            known["runtime"] = locks["runtime"]
    progress.step("[3/3] khesht itself")
    install(venv, progress, 1, "--no-deps", "--no-build-isolation", "-e", ROOT)
    stamp.write_text(json.dumps({**known, **wanted, "project": project}, indent=1))
    progress.step("set up")


def read(stamp: Path) -> dict[str, str]:
    """What a former run wrote; nothing if there was none, or none that ended well."""
    try:
        told = json.loads(stamp.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def digest(path: Path) -> str:
    """A file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def needed(lock: Path) -> int:
    """About how many packages a lock is for here: markers are pip's to read."""
    return len(re.findall(r"^[^\s#]", lock.read_text(), re.M))


def site_packages(venv: Path) -> Path:
    """Where packages of `venv` lie."""
    return venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def damage(venv: Path) -> str:
    """A file of `venv` that is not what was installed, "" if there is none.

    The interpreter has to run; of the packages, their files have to be there in their sizes.
    """
    try:
        subprocess.run([venv / "bin" / "python", "-c", "import pip"], check=True, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return str(venv / "bin" / "python")
    site = site_packages(venv)
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(newline="") as file:
            for name, _, size in csv.reader(file):
                try:
                    there = os.stat(site / name).st_size
                except OSError:
                    return name
                # Installed scripts are rewritten, and have no size; caches may change.
                if size and not name.endswith(".pyc") and int(size) != there:
                    return name
    return ""


def make_venv(venv: Path) -> None:
    """Makes an empty environment of this interpreter, whatever stood there.

    Raises Failed.
    """
    if venv.is_symlink() or venv.is_file():
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)
    # That of an environment is no base for another.
    python = getattr(sys, "_base_executable", None) or sys.executable
    made = subprocess.run([python, "-m", "venv", venv], capture_output=True, text=True)
    if made.returncode == 0:
        return
    if "ensurepip" in made.stdout + made.stderr or "No module named venv" in made.stderr:
        package = f"python3.{sys.version_info[1]}-venv"
        raise Failed(f"{python} has no venv. On Debian: sudo apt-get install {package}")
    raise Failed(explained(made.stdout + made.stderr))


def install(venv: Path, progress: Progress, packages: int, *what: "str | Path") -> None:
    """Installs by pip, and shows how many of `packages` have been fetched and installed.

    What pip says goes to `<venv>/install.log`: most of its warnings are about the machine.
    Raises Failed.
    """
    command = [
        *(venv / "bin" / "python", "-m", "pip", "install", "--no-input", "--no-color"),
        *("--disable-pip-version-check", "--progress-bar", "off", *what),
    ]
    environment = {name: value for name, value in os.environ.items() if name not in REFUSED}
    environment |= {"PIP_USER": "0", "PYTHONUNBUFFERED": "1"}
    log = venv / "install.log"
    pip = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said: list[str] = []
    reader = threading.Thread(target=copy, args=(pip, log, said))
    reader.start()
    before = len(list(site_packages(venv).glob("*.dist-info")))
    try:
        while reader.is_alive():
            reader.join(LIVE_INTERVAL_S)
            there = len(list(site_packages(venv).glob("*.dist-info")))
            progress.so_far(how_far(said, packages, there - before))
    finally:
        # Ctrl-C reaches pip too; what it does not end by, does.
        pip.terminate()
        status = pip.wait()
        reader.join()
        progress.done()
    if status != 0:
        raise Failed(f"{explained(''.join(said))}\npip's own words are in {log}")


def copy(pip: "subprocess.Popen[str]", log: Path, said: "list[str]") -> None:
    """Takes what pip says, to a file and to a list."""
    assert pip.stdout is not None
    with pip.stdout, log.open("a") as file:
        for line in pip.stdout:
            said.append(line)
            with contextlib.suppress(OSError):  # The disk may be full; pip will say so.
                file.write(line)


def how_far(said: "list[str]", packages: int, installed: int) -> str:
    """A line about how far pip is."""
    lines = list(said)
    begun = [line for line in lines if line.startswith("Installing collected packages: ")]
    if begun:
        return f"installed {max(installed, 0)} of {begun[-1].count(',') + 1}"
    if lines and "Retrying" in lines[-1]:
        return "the package index does not answer; trying again"
    names = [line.split()[1] for line in lines if line.startswith("Collecting ")]
    sizes = re.findall(r"(?:Downloading|Using cached) \S+ \(([\d.]+) (k|M|G)B\)", "".join(lines))
    megabytes = sum(float(size) * {"k": 0.001, "M": 1, "G": 1000}[unit] for size, unit in sizes)
    name = names[-1].partition("==")[0] if names else "starting"
    return f"fetched {len(names)} of {packages}, {megabytes:.0f} MB: {name}"


def explained(output: str) -> str:
    """What went wrong by what a tool said, and what to do about it."""
    lines = [line for line in output.splitlines() if line.startswith("ERROR")] or [output.strip()]
    short = "\n".join(lines[-4:])[-1000:]
    for pattern, remedy in REMEDIES:
        if re.search(pattern, output):
            return f"{remedy}.\n{short}"
    return short


if __name__ == "__main__":
    main(*sys.argv[1:])
