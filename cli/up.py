"""`khesht up`: the whole mesh on this machine, in the foreground, until Ctrl-C."""

import sys
import time
from collections.abc import Callable
from shlex import quote

from cli import edge, topology
from cli.progress import Progress
from cli.settings import LocalSettings
from mesh import descriptors
from mesh.local import certificates, home, postgres, provision
from mesh.local.certificates import Identity
from mesh.local.ports import claim, free_ports
from mesh.local.ready import grpc_ready
from mesh.local.supervisor import Process, Supervisor

_WELCOME = """
ready in {seconds:.1f} s

  REST, SSE, gRPC-Web   {url}
  native gRPC           {host}:{grpc}
  logs and state        {home}

Next, in another terminal:

  curl -s {url}/auth/register -H 'Content-Type: application/json' \\
    -d '{{"username": "ada", "email": "ada@example.com", "password": "password123"}}'

{commands}

Ctrl-C stops everything.
"""
_PROGRAM = ".venv/bin/khesht"
_STOPPING = "stopping: replies that run have 23 seconds"


async def up(settings: LocalSettings, report: Callable[[str], None]) -> None:
    """Starts everything, says how to go on, and returns when all has been stopped.

    Raises LocalError when something can't be started.
    """
    began = time.monotonic()
    descriptors.raise_limit()
    place = home.open_home(settings.home)
    with home.locked(place):
        claim(settings.gateway_port, "GATEWAY_PORT")
        claim(settings.grpc_port, "GRPC_PORT")
        secret = home.master_secret(place, settings.secret_key)
        holders = (*topology.SERVICES, topology.WORKER, "edge", "operator")
        identities = certificates.issue(place.certs, holders)
        workers = [f"{topology.WORKER}-{number}" for number in range(1, settings.workers + 1)]
        processes = (*topology.SERVICES, *workers)
        database, *ports = free_ports(1 + len(processes))
        addresses = {name: f"127.0.0.1:{port}" for name, port in zip(processes, ports, strict=True)}
        names = ["postgres"] * (settings.database_url is None) + ["migrate", *processes, "edge"]
        async with Supervisor(place, report, _STOPPING) as mesh:
            with Progress(names, report) as mesh.progress:
                admin = settings.database_url
                if admin is None:
                    postgres.prepare(place, secret)
                    await mesh.start(postgres.process(place, database))
                    admin = postgres.admin_dsn(database, secret)
                    provision.create_database(admin)
                await mesh.run(_migration(settings, admin, secret))
                await mesh.start(
                    *[
                        _service(name, addresses, identities, settings, admin, secret)
                        for name in processes
                    ]
                )
                relief = edge.relief(place, settings, report)
                process = edge.process(place, settings, identities["edge"], addresses, relief)
                await mesh.start(process)
            report(_welcome(settings, time.monotonic() - began))
            await relief.run()
        report("stopped")


def _welcome(settings: LocalSettings, seconds: float) -> str:
    scheme = "https" if settings.edge_tls else "http"
    hints = _hints(settings)
    width = max(map(len, hints)) + 6
    return _WELCOME.format(
        seconds=seconds,
        url=f"{scheme}://{settings.edge_host}:{settings.gateway_port}",
        host=settings.edge_host,
        grpc=settings.grpc_port,
        home=settings.home,
        commands="\n".join(f"  {command:{width}}{what}" for command, what in hints.items()),
    )


def _hints(settings: LocalSettings) -> dict[str, str]:
    """What a command does, by how it is typed in a terminal that knows no more than `.env`."""
    there, _ = LocalSettings.attempt({})

    def told(**values: tuple[object, object]) -> str:
        differ = {name: str(here) for name, (here, its) in values.items() if here != its}
        return "".join(f"{name}={quote(value)} " for name, value in differ.items())

    home = told(KHESHT_HOME=(settings.home, there.home))
    edge = told(
        EDGE_ADDRESS=(settings.edge_address, there.edge_address),
        GRPC_PORT=(settings.grpc_port, there.grpc_port),
    )
    tls = " --tls" if settings.edge_tls else ""
    return {
        f"{edge}{_PROGRAM} chat{tls}": "talk to a model over gRPC",
        f"{home}{_PROGRAM} status": "what runs, and how it is",
    }


def _migration(settings: LocalSettings, admin: str, secret: str) -> Process:
    """A process of its own, because what migrates is large and wanted only now."""
    told = {"DATABASE_URL": admin, "SECRET_KEY": secret}
    return Process(
        name="migrate",
        argv=(sys.executable, "-m", "cli.main", "migrate"),
        env={**_of_no_service(settings), **told},
        ready=_never,
    )


def _of_no_service(settings: LocalSettings) -> dict[str, str]:
    given = settings.environment.items()
    return {name: value for name, value in given if topology.is_for("", name)}


async def _never() -> bool:
    return False


def _service(
    name: str,
    addresses: dict[str, str],
    identities: dict[str, Identity],
    settings: LocalSettings,
    admin: str,
    secret: str,
) -> Process:
    known_as = topology.WORKER if name.startswith(topology.WORKER) else name
    told = topology.environment(
        name, addresses, identities[known_as], admin, secret, settings.environment
    )
    module = "services.chat.worker" if known_as == topology.WORKER else f"services.{name}"
    port = int(addresses[name].rsplit(":", 1)[1])
    runs_generations = topology.service_of(name) == "chat"
    return Process(
        name=name,
        argv=(sys.executable, "-m", module),
        # All of them go: there is no other that callers could be told of in time.
        env={**told, "LAME_DUCK": "0", "MALLOC_ARENA_MAX": "2"},
        ready=grpc_ready(known_as, port, identities["operator"]),
        address=addresses[name],
        stop_timeout=30.0,
        # Before the edge, by which streams are told how they end; and those that run
        # generations before what they still speak to.
        stop_turn=-2 if runs_generations else -1,
    )
