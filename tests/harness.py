"""Real parts for tests: one PostgreSQL, and the services of the mesh in this process.

The services run as they do under `khesht up`, from the same environment and by
the same wiring, with mTLS between them, only in one event loop and on free ports.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import grpc
import psycopg

from cli import topology
from mesh import client, migrations
from mesh.local import certificates, postgres, provision
from mesh.local.certificates import Identity
from mesh.local.home import open_home
from mesh.local.ports import free_ports
from mesh.server import Server
from mesh.tls import Certificate
from tests.support import eventually

SECRET = "a secret of the tests, which nothing else has"


@asynccontextmanager
async def running_postgres(folder: Path) -> AsyncIterator[str]:
    """The administrator's URL of a real PostgreSQL below `folder`, without fsync."""
    home = open_home(folder / "home")
    postgres.prepare(home, SECRET)
    (port,) = free_ports(1)
    server = postgres.process(home, port)
    process = await asyncio.create_subprocess_exec(
        *(*server.prefix, sys.executable, "-m", "mesh.local.child", str(os.getpid())),
        *(*server.argv, "-c", "fsync=off"),
        env={**server.env, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:

        async def answers() -> bool:
            with contextlib.suppress(OSError):
                return await server.ready()
            return False

        await eventually(answers, within=20)
        admin = postgres.admin_dsn(port, SECRET)
        provision.create_database(admin)
        yield admin
    finally:
        process.send_signal(server.stop_signal)
        await process.wait()


def new_database(admin: str, name: str) -> str:
    """The administrator's URL of an empty database with the schemas of all services."""
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    own = admin.rsplit("/", 1)[0] + f"/{name}"
    migrate(own)
    return own


def migrate(admin: str) -> None:
    """Makes and migrates the schemas of all services."""
    provision.provision(admin, topology.SERVICES, SECRET)
    for service in topology.SERVICES:
        url = postgres.service_dsn(admin, service, SECRET)
        migrations.upgrade(service, topology.migrations(service), url)


@dataclass
class Mesh:
    """Services in this process. `settings` are what a user would set."""

    admin_dsn: str
    certificates: dict[str, Identity]
    settings: Mapping[str, str]
    addresses: dict[str, str]
    stack: AsyncExitStack
    servers: dict[str, Server] = field(default_factory=dict)
    born_in: AsyncExitStack | None = field(init=False, default_factory=lambda: Mesh.running_test)
    """The test that made it, None if it is shared."""

    running_test: ClassVar[AsyncExitStack | None] = None
    """What is closed at the end of the test that runs; `closing_channels` sets it."""

    async def start(self, service: str) -> Server:
        """Starts one service by its own wiring, with a lame duck of no time."""
        given = {"PATH": os.defpath, "LAME_DUCK": "0", "APP_ENV": "test", **self.settings}
        told = topology.environment(
            service, self.addresses, self.certificates[service], self.admin_dsn, SECRET, given
        )
        of = topology.service_of(service)
        wiring = import_module(f"services.{of}.wiring")
        build = wiring.build_worker if service == topology.WORKER else wiring.build
        config = import_module(f"services.{of}.config").Config.load(told)
        server: Server = await build(config, self.stack)
        await server.start(config.listen)
        self.stack.push_async_callback(server.stop, lame_duck=0, grace=1)
        self.servers[service] = server
        return server

    def certificate(self, name: str) -> Certificate:
        """The certificate of a process of the mesh."""
        files = self.certificates[name]
        return Certificate.read(files.cert, files.key, files.ca)

    async def channel(self, service: str, peer: str = "edge") -> grpc.aio.Channel:
        """A channel to `service` as the process `peer`.

        It is closed with the mesh or, of a mesh that tests share, with the test that made it.
        """
        made = client.channel(service, self.addresses[service], self.certificate(peer))
        test = Mesh.running_test
        shared = test is not None and test is not self.born_in
        return await (test if shared else self.stack).enter_async_context(made)


@asynccontextmanager
async def running_mesh(
    admin_dsn: str, folder: Path, *services: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Mesh]:
    """The `services` in this process, started in order."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = (*topology.SERVICES, topology.WORKER)
    identities = certificates.issue(folder, (*processes, "edge", "operator"))
    ports = free_ports(len(processes))
    addresses = {name: f"127.0.0.1:{port}" for name, port in zip(processes, ports, strict=True)}
    async with AsyncExitStack() as stack:
        mesh = Mesh(admin_dsn, identities, settings or {}, addresses, stack)
        for service in services:
            await mesh.start(service)
        yield mesh


@asynccontextmanager
async def replica(mesh: Mesh, service: str) -> AsyncIterator[Mesh]:
    """`mesh` with one more server of `service`, which its addresses lead to; stopped at the end.

    A second one of keys wants a Redis to be named, if only one that is not there.
    """
    (port, nowhere) = free_ports(2)
    settings = {"REDIS_URL": f"redis://127.0.0.1:{nowhere}", **mesh.settings}
    async with AsyncExitStack() as stack:
        addresses = {**mesh.addresses, service: f"127.0.0.1:{port}"}
        second = replace(mesh, settings=settings, addresses=addresses, stack=stack, servers={})
        await second.start(service)
        yield second


@asynccontextmanager
async def closing_channels() -> AsyncIterator[None]:
    """Closes the channels that are made meanwhile to a mesh that was there before."""
    async with AsyncExitStack() as stack:
        Mesh.running_test = stack
        try:
            yield
        finally:
            Mesh.running_test = None


def bearer(credential: str, **more: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with `credential`."""
    return (("authorization", f"Bearer {credential}"), *more.items())
