"""The life of a service's process: settings, start, serve, and an orderly end.

Exits with 2 when the settings are wrong, before anything is opened.
"""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

import structlog
import uvloop

from mesh import descriptors, failpoints, logs
from mesh.config import ConfigError, ServiceSettings
from mesh.server import Server

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("process")

S = TypeVar("S", bound=ServiceSettings)
# Builds all objects of a service; what has to be closed goes on the stack.
Build = Callable[[S, AsyncExitStack], Awaitable[Server]]

WRONG_SETTINGS = 2
_GRACE = 25.0
# Time for streams to say how they end, when the stop is hurried.
_HURRIED_GRACE = 1.0


def run(service: str, settings: type[S], build: Build[S]) -> None:
    """Runs a service until SIGTERM or SIGINT; a second one hurries."""
    try:
        config = settings.load(os.environ)
        if config.production and failpoints.VARIABLE in os.environ:
            raise ConfigError(f"{failpoints.VARIABLE}: not in production")
        descriptors.raise_limit()
        logs.setup(service, level=config.level, production=config.production)
        uvloop.run(_serve(config, build))
    except ConfigError as wrong:
        print(f"{service}: wrong settings\n{wrong}", file=sys.stderr)  # noqa: T201 - maybe no log
        sys.exit(WRONG_SETTINGS)
    except OSError as error:
        print(f"{service}: {error}", file=sys.stderr)  # noqa: T201 - as above
        sys.exit(1)


async def _serve(config: S, build: Build[S]) -> None:
    loop = asyncio.get_running_loop()
    asked, hurry = asyncio.Event(), asyncio.Event()

    def end() -> None:
        (hurry if asked.is_set() else asked).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    async with AsyncExitStack() as stack:
        server = await build(config, stack)
        await server.start(config.listen)
        _spare_the_collector()
        await asked.wait()
        log.info("stopping")
        stopping = asyncio.create_task(server.stop(lame_duck=config.lame_duck, grace=_GRACE))
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await server.stop(lame_duck=0, grace=_HURRIED_GRACE)
        await stopping
        hurrying.cancel()
    log.info("stopped")


def _spare_the_collector() -> None:
    """Leaves what was built at start out of garbage collection, and collects less often.

    Nearly all that a call allocates is freed by its counts of references.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
