"""The embedded database and what the services get in it."""

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from mesh.local import postgres
from mesh.local.errors import LocalError
from mesh.local.home import Home
from mesh.local.ports import free_ports
from mesh.local.provision import create_database, provision
from mesh.local.supervisor import Supervisor
from tests.integration.local import sample_mesh
from tests.support import eventually

SECRET = "s" * 40
SERVICES = ("auth", "chat")
ORDINARY_USER = pwd.getpwnam("daemon").pw_uid  # initdb wants one that has a name


@contextlib.asynccontextmanager
async def running(home: Home) -> AsyncIterator[str]:
    """The administrator's DSN of a server that runs for this long."""
    port = free_ports(1)[0]
    postgres.prepare(home, SECRET)
    async with Supervisor(home, print) as mesh:
        await mesh.start(postgres.process(home, port))
        yield postgres.admin_dsn(port, SECRET)


async def test_each_service_has_a_schema_that_no_other_can_use(home: Home) -> None:
    async with running(home) as admin:
        create_database(admin)
        for _ in range(2):  # Every start provisions again.
            provision(admin, SERVICES, SECRET)

        with psycopg.connect(postgres.service_dsn(admin, "chat", SECRET)) as chat:
            chat.execute("CREATE TABLE messages AS SELECT 'secret' AS text")
        dsn = postgres.service_dsn(admin, "auth", SECRET)
        with psycopg.connect(dsn, autocommit=True) as auth:
            who = auth.execute(
                "SELECT current_user, current_database(), current_schema(),"
                " rolsuper OR rolcreatedb OR rolcreaterole,"
                " has_schema_privilege('public', 'USAGE')"
                " FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            refused = [
                "SELECT * FROM chat.messages",
                "CREATE TABLE chat.mine ()",
                "CREATE TABLE public.mine ()",
                "CREATE SCHEMA mine",
                "CREATE TEMPORARY TABLE mine ()",
                "SET ROLE khesht_chat",
                "CREATE DATABASE mine",
            ]
            for statement in refused:
                with pytest.raises(errors.InsufficientPrivilege):
                    auth.execute(statement)

    assert who == ("khesht_auth", "khesht", "auth", False, False)


async def test_the_database_speaks_utf8_and_keeps_data_over_a_restart(home: Home) -> None:
    async with running(home) as admin:
        create_database(admin)
        with psycopg.connect(admin) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 'خشت' AS text")
    async with running(home) as admin:
        create_database(admin)
        with psycopg.connect(admin) as connection:
            row = connection.execute("SELECT text, upper('é') FROM kept").fetchone()

    assert row == ("خشت", "É")


async def test_statements_and_their_values_stay_out_of_the_log(home: Home) -> None:
    async with running(home) as admin:
        with psycopg.connect(admin, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE TABLE t (v text UNIQUE)")
            for _ in range(2):
                with contextlib.suppress(errors.UniqueViolation):
                    connection.execute("INSERT INTO t VALUES (%s)", ["hush"])
            with pytest.raises(errors.InvalidTextRepresentation):
                connection.execute("SELECT 'hush'::int")

    log = (home.logs / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert "hush" not in log


async def test_a_database_of_others_is_provisioned_by_a_role_that_may(home: Home) -> None:
    async with running(home) as admin:
        with psycopg.connect(admin, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE ROLE landlord LOGIN CREATEROLE PASSWORD 'p'")
            connection.execute("CREATE DATABASE theirs OWNER landlord")
        port = urlsplit(admin).port
        url = f"postgresql://landlord:p@127.0.0.1:{port}/theirs?application_name=x"

        for _ in range(2):
            provision(url, SERVICES, SECRET)
        dsn = postgres.service_dsn(url, "auth", SECRET)
        with psycopg.connect(dsn) as auth:
            who = auth.execute(
                "SELECT current_user, current_database(), current_schema(),"
                " current_setting('application_name')"
            ).fetchone()

    assert who == ("khesht_auth", "theirs", "auth", "x")


async def test_a_schema_of_somebody_else_is_not_taken(home: Home) -> None:
    async with running(home) as admin:
        create_database(admin)
        with psycopg.connect(admin) as connection:
            connection.execute("CREATE SCHEMA auth")

        with pytest.raises(LocalError, match=r"schema auth already.*khesht"):
            provision(admin, SERVICES, SECRET)


def test_an_unreachable_database_is_told_without_its_password() -> None:
    url = f"postgresql://someone:hush@127.0.0.1:{free_ports(1)[0]}/theirs"

    with pytest.raises(LocalError, match="Connection refused") as refusal:
        provision(url, SERVICES, SECRET)

    assert "hush" not in str(refusal.value)


@pytest.mark.parametrize(
    "url", ["mysql://someone:hush@h/d", "postgresql://someone:hush%zz@h/d", "hush"]
)
def test_a_url_that_is_not_postgresqls_is_refused_by_variable_alone(url: str) -> None:
    with pytest.raises(LocalError, match="DATABASE_URL is not") as refusal:
        provision(url, SERVICES, SECRET)

    assert "hush" not in str(refusal.value)


def test_a_cluster_of_another_secret_is_refused_by_variable(home: Home) -> None:
    postgres.prepare(home, SECRET)

    with pytest.raises(LocalError, match="another SECRET_KEY"):
        postgres.prepare(home, "another" * 6)


async def test_an_interrupted_initdb_leaves_nothing_that_is_taken_for_a_database(
    home: Home,
) -> None:
    command = [*sample_mesh.COMMAND, str(home.root), "prepare"]
    preparing = await asyncio.create_subprocess_exec(*command, cwd=sample_mesh.ROOT)
    await eventually(lambda: list(home.postgres.glob("unfinished-*/base")))
    preparing.kill()
    await preparing.wait()
    half_made = list(home.postgres.iterdir())
    await eventually(lambda: not commands_that_name(home.postgres))

    async with running(home) as admin:
        create_database(admin)

    assert [p.name.startswith("unfinished-") for p in half_made] == [True]
    assert [p.name for p in home.postgres.iterdir()] == ["data"]


def commands_that_name(path: Path) -> list[bytes]:
    """The command lines of all processes that have `path` in theirs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes())
    return [command for command in found if bytes(path) in command]


async def test_a_server_that_still_runs_is_named(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ORPHAN_PATIENCE", 0.1)
    async with running(home):
        pid = (home.postgres / "data/postmaster.pid").read_text().split()[0]

        with pytest.raises(LocalError, match=f"still runs on .*: process {pid}"):
            postgres.prepare(home, SECRET)


async def test_a_pid_file_whose_number_is_anothers_by_now_does_not_block(home: Home) -> None:
    postgres.prepare(home, SECRET)
    same_user = postgres.process(home, 0).prefix  # PostgreSQL heeds no other user's processes.
    stranger = await asyncio.create_subprocess_exec(*same_user, "sleep", "1000")
    (home.postgres / "data/postmaster.pid").write_text(f"{stranger.pid}\n")

    try:
        async with running(home) as admin:
            create_database(admin)
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.fixture
def private_home() -> Iterator[Path]:
    """A home of an ordinary user, below a folder that only that user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="khesht-"))
    if os.geteuid() == 0:
        os.chown(folder, ORDINARY_USER, ORDINARY_USER)
    yield folder / "home"
    shutil.rmtree(folder)


def as_ordinary_user() -> list[str]:
    """Root becomes one, allowed beyond that only to read the code under test."""
    if os.geteuid() != 0:
        return []
    ids = [f"--reuid={ORDINARY_USER}", f"--regid={ORDINARY_USER}", "--clear-groups"]
    capabilities = "-all,+dac_read_search"
    allowed = [f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
    return ["setpriv", *ids, *allowed]


def test_an_ordinary_user_runs_it_in_a_private_folder(private_home: Path) -> None:
    with sample_mesh.running(private_home, *as_ordinary_user()) as mesh:
        mesh.terminate()
        code = mesh.wait(10)

    assert code == 0
    assert private_home.stat().st_uid == (os.geteuid() or ORDINARY_USER)


def test_programs_below_a_folder_of_root_alone_are_found(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = private / "program"
    program.touch(mode=0o755)
    # As initdb does it, by access(2), which asks for the real user.
    command = [*postgres._as_ordinary_user(), "test", "-x", str(program)]
    assert subprocess.run(command, check=False).returncode == 0
