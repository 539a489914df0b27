"""The containers of docker-compose.yml as processes of this machine, without an engine.

Each has a folder that stands for its file system: its volumes are linked where the file mounts
them and nowhere else, so what it may not see it can't read. Commands, environments and health
checks are those of the file and of the built image; names of containers become ports of 127.0.0.1.
PostgreSQL, Redis and Envoy are this machine's. Limits, users and networks are not rehearsed.
"""

import asyncio
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesh.local import envoy
from mesh.local.child import dying_with_us
from scripts.image import Image
from tests import compose
from tests.compose import JSON, ROOT
from tests.support import eventually

OURS = "khesht"
STORES = ("postgres", "redis")


@dataclass
class Rehearsal:
    """A project of Compose.

    `ports` are this machine's: of each container, and of the edge as `gateway` and `grpc`.
    """

    image: Image
    folder: Path
    ports: Mapping[str, int]
    settings: Mapping[str, str]
    services: dict[str, JSON] = field(init=False)
    running: dict[str, asyncio.subprocess.Process] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Reads the file, and makes the folders of containers and volumes."""
        self.services = compose.filled(compose.read()["services"], self.settings)
        for name, service in self.services.items():
            for path in service["tmpfs"]:
                self._root(name, path).mkdir(parents=True)
            for path, (source, _) in compose.mounts(service).items():
                volume = ROOT / source if "/" in source else self.folder / "volumes" / source
                if "/" not in source:
                    volume.mkdir(parents=True, exist_ok=True)
                self._root(name, path).parent.mkdir(parents=True, exist_ok=True)
                self._root(name, path).symlink_to(volume)

    async def up(self, *names: str) -> None:
        """Starts containers after those that they depend on, as the conditions say."""
        for name in names:
            if name in self.running or name in STORES:
                continue
            for other, each in self.services[name].get("depends_on", {}).items():
                await self.up(other)
                if other not in STORES:
                    await self._until(other, each["condition"])
            await self._start(name)

    async def healthy(self, name: str) -> bool:
        """Whether the health check of a container, run in it, is content."""
        given = self.services[name].get("healthcheck", {"test": ["CMD", *self.image.healthcheck]})
        check = await self.execute(name, *given["test"][1:])
        return await check.wait() == 0

    async def stop(self, name: str) -> tuple[int, float]:
        """The status with which a container ends when it is asked to, and the seconds it took."""
        loop = asyncio.get_running_loop()
        process, began = self.running.pop(name), loop.time()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        return await process.wait(), loop.time() - began

    async def execute(self, name: str, *command: str) -> asyncio.subprocess.Process:
        """Runs a command in a container, as `docker compose exec` does."""
        service = self.services[name]
        own = self.image.told() if service["image"] == OURS else {}
        told = {each: self._here(name, text) for each, text in self._told(name).items()}
        argv = [self._here(name, each) for each in command]
        program = shutil.which(argv[0], path=own.get("PATH")) or argv[0]
        with self.log(name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *dying_with_us(program, *argv[1:]),
                env=own | told,
                cwd=self.image.path(".") if own else self.folder,
                stdout=log,
                stderr=log,
            )

    def log(self, name: str) -> Path:
        """What a container says."""
        return self.folder / f"{name}.log"

    async def _until(self, name: str, condition: str) -> None:
        if condition == "service_completed_successfully":
            assert await self.running[name].wait() == 0, self.log(name).read_text()
        else:
            assert condition == "service_healthy"
            await eventually(lambda: self.healthy(name), within=30)

    async def _start(self, name: str) -> None:
        service = self.services[name]
        if service["image"] == OURS:
            command = (*self.image.entrypoint, *service["command"])
        else:
            self._find_files_of_the_edge()
            command = (str(envoy.binary()), *service["command"])
        self.running[name] = await self.execute(name, *command)

    def _told(self, name: str) -> dict[str, str]:
        """The environment of a container, with what is host or port alone as it is here."""
        alone = {
            **{"DB_HOST": "127.0.0.1", "DB_PORT": str(self.ports["postgres"])},
            **{"EDGE_ADDRESS": "127.0.0.1", "GATEWAY_PORT": str(self.ports["gateway"])},
            "GRPC_PORT": str(self.ports["grpc"]),
        }
        told: dict[str, str] = self.services[name].get("environment", {})
        return told | {each: value for each, value in alone.items() if each in told}

    def _here(self, name: str, text: str) -> str:
        """`text` with the addresses and paths of a container as they are on this machine."""
        for host, port in self.ports.items():
            text = text.replace(f"{host}:50051", f"127.0.0.1:{port}")
        text = text.replace("0.0.0.0:50051", f"127.0.0.1:{self.ports.get(name)}")
        text = text.replace("redis:6379", f"127.0.0.1:{self.ports['redis']}")
        for port, listener in (("8000", "gateway"), ("8443", "grpc")):
            text = text.replace(f"/127.0.0.1/{port}", f"/127.0.0.1/{self.ports[listener]}")
        own = ("/prepared", *compose.mounts(self.services[name]))
        return str(self._root(name, text)) if text.startswith(own) else text

    def _find_files_of_the_edge(self) -> None:
        """Containers see a volume by one path, here each has its own: mends those in Envoy's file."""
        config = self._root("edge", "/prepared/edge/envoy.yaml")
        prepare, edge = (str(self._root(name, "/prepared/edge")) for name in ("prepare", "edge"))
        text = config.read_text().replace(prepare, edge)
        config.write_text(text.replace("/tmp/envoy.sock", str(self._root("edge", "/tmp/envoy"))))

    def _root(self, name: str, path: str) -> Path:
        return self.folder / "containers" / name / path.removeprefix("/")
