"""The folder of one mesh (KHESHT_HOME): its rooms, its lock and its master secret."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mesh.local.errors import LocalError
from mesh.local.files import write_private

SHORTEST_SECRET = 32


@dataclass(frozen=True, slots=True)
class Home:
    """The rooms of one mesh. `open_home` makes them, `find_home` only looks."""

    root: Path

    @property
    def postgres(self) -> Path:
        """Holds the embedded database."""
        return self.root / "postgres"

    @property
    def certs(self) -> Path:
        """Holds the development authority and the certificates it issued."""
        return self.root / "certs"

    @property
    def logs(self) -> Path:
        """Holds `<process>.log` of each process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Holds what is true only while the mesh runs."""
        return self.root / "run"

    @property
    def secrets(self) -> Path:
        """Holds the generated master secret."""
        return self.root / "secrets"


def open_home(root: Path) -> Home:
    """The home at `root`, made with mode 700 where it is missing.

    A folder that exists keeps its mode, whatever it is; the rooms inside are ours and private.
    Raises LocalError if the folder cannot be used or belongs to another user.
    """
    home = Home(root.absolute())
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(home)
        for room in (home.postgres, home.certs, home.logs, home.run, home.secrets):
            room.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LocalError(f"KHESHT_HOME {home.root} cannot be used: {error.strerror}") from error
    return home


def find_home(root: Path) -> Home:
    """The home at `root`, which may be missing; nothing is made. Raises as `open_home` does."""
    home = Home(root.absolute())
    try:
        _refuse_others(home)
        os.listdir(home.root)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LocalError(f"KHESHT_HOME {home.root} cannot be used: {error.strerror}") from error
    return home


def _refuse_others(home: Home) -> None:
    owner = home.root.stat().st_uid
    if owner != os.geteuid():
        raise LocalError(
            f"KHESHT_HOME {home.root} belongs to user {owner}; run as that user, "
            "or set KHESHT_HOME to another folder"
        )


@contextlib.contextmanager
def locked(home: Home) -> Iterator[None]:
    """Holds the home for this process. Raises LocalError, naming the holder, if another has it.

    The kernel lets go of the lock when the process ends, however it ends. No child inherits it.
    """
    with _lock_file(home).open("a+b") as file:
        if not _take(file.fileno()):
            raise LocalError(
                f"a mesh runs in {home.root} already (process {holder(home)}); "
                "stop it with `khesht down`, or set KHESHT_HOME to another folder"
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def holder(home: Home) -> int | None:
    """The id of the process that holds the home, or None if nobody does."""
    for _ in range(_TRIES):
        try:
            file = _lock_file(home).open("rb")
        except FileNotFoundError:
            return None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                pid = file.read()
        if pid:
            return int(pid)
        time.sleep(
            _PAUSE
        )  # The holder is between taking the lock and signing it, or another asks the same.
    return None


def master_secret(home: Home, given: str | None) -> str:
    """The secret that all others are derived from.

    It is `given` (SECRET_KEY), else one that is generated once for this home.
    Raises LocalError, naming the variable or the file, if it has fewer than 32 characters.
    """
    path = home.secrets / "secret_key"
    if given is not None:
        return long_enough(given, "SECRET_KEY")
    if not path.exists():
        write_private(path, secrets.token_urlsafe(48).encode())
    return long_enough(path.read_text().strip(), str(path))


def long_enough(secret: str, source: str) -> str:
    """`secret`, if it can be the master secret. Raises LocalError, naming its `source`, if not."""
    if len(secret) < SHORTEST_SECRET:
        raise LocalError(
            f"{source} has {len(secret)} characters; at least {SHORTEST_SECRET} are needed"
        )
    return secret


_TRIES, _PAUSE = 10, 0.02


def _lock_file(home: Home) -> Path:
    return home.run / "lock"


def _take(descriptor: int) -> bool:
    # More than once, because whoever asks for the holder has the lock for an instant.
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_PAUSE)
    return False
