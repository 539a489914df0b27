"""A gRPC server of the mesh: its limits, health, and the order in which it stops."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from mesh import access, reflection
from mesh.access import Rule
from mesh.calls.chain import Chain
from mesh.config import DEFAULT_CALL_LIMITS, CallLimits
from mesh.identity.identity import Identity
from mesh.time_limits import CONNECTION_GRACE_S
from mesh.tls import Certificate

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("server")

# What gRPC hands to a servicer; ours find all they need in `mesh.calls.call`.
Context = grpc.aio.ServicerContext[Any, Any]
Check = Callable[[], Awaitable[bool]]

_OPTIONS = [
    # A stale process must not take half of the calls in silence.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", 4 << 20),
    # The 16 KiB that the edge takes from a client, and what it adds.
    ("grpc.max_metadata_size", 24 << 10),
    ("grpc.absolute_max_metadata_size", 32 << 10),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Not above any client's keepalive, or all its streams die of too many pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_age_ms", 300_000),
    # Longer than the longest stream, which it would cut otherwise.
    ("grpc.max_connection_age_grace_ms", int(CONNECTION_GRACE_S * 1_000)),
]
# What gRPC itself refuses, whoever calls: more than the edge lets through to a service, so that
# calls of other services and looks at our health find room.
_MOST_CALLS = 8_192
_CHECK_EVERY = 2.0
# What comes back is told of soon: callers wait for it.
_CHECK_AGAIN = 0.25
# Seconds in which a stream that is ended by us can still say so.
_LAST_WORDS = 2.0


class Server:
    """One service's server. Add what it serves, then start it."""

    def __init__(
        self,
        certificate: Certificate,
        rules: Mapping[str, Rule],
        identity: Identity,
        *,
        limits: CallLimits = DEFAULT_CALL_LIMITS,
        ready: Sequence[Check] = (),
        draining: Callable[[], None] = lambda: None,
        idle: Callable[[], Awaitable[None]] | None = None,
        reflect: bool = False,
    ) -> None:
        """Serves while every check of `ready` is true.

        `draining` is called shortly before calls that still run are cut, so that
        streams may end themselves. `idle` returns when nothing runs that goes on
        without a call.
        """
        self._certificate = certificate
        self._rules = {**rules, **access.INFRASTRUCTURE}
        self._checks = ready
        self.is_ready = False  # As the last look found it; what its health says.
        self._draining = draining
        self._idle = idle
        self._reflect = reflect
        self._health = health.HealthServicer()
        self._chain = Chain(self._rules, identity, limits)
        self.shares = self._chain.shares
        self._watch: asyncio.Task[None] | None = None
        self._grpc = grpc.aio.server(
            interceptors=[self._chain],
            options=[*_OPTIONS, ("grpc.max_receive_message_length", limits.request_bytes)],
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        self._services: list[ServiceDescriptor] = []
        self.port = 0

    def add(
        self,
        service: ServiceDescriptor,
        register: Callable[[Any, grpc.aio.Server], None],
        servicer: object,
    ) -> None:
        """Serves `service` by `servicer`; `register` is its generated `add_…_to_server`."""
        register(servicer, self._grpc)
        self._services.append(service)

    async def start(self, listen: str) -> None:
        """Serves on `listen`, host:port; port 0 takes a free one, then in `port`.

        Raises ValueError when the rules are not those of the methods added, and
        OSError when the port is taken.
        """
        methods = [f"/{s.full_name}/{method.name}" for s in self._services for method in s.methods]
        access.check_complete(self._rules, [*methods, *access.INFRASTRUCTURE])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if self._reflect:
            reflection.enable(self._grpc)
        try:
            self.port = self._grpc.add_secure_port(listen, self._certificate.for_server())
        except RuntimeError:
            raise OSError(f"LISTEN: {listen} is taken") from None
        await self._check()
        await self._grpc.start()
        self._watch = asyncio.create_task(self._keep_checking())
        log.info("serving", address=f"{listen.rsplit(':', 1)[0]}:{self.port}")

    async def stop(self, *, lame_duck: float, grace: float) -> None:
        """Stops without losing a call: says so, waits, lets calls end, then leaves.

        For `lame_duck` seconds it still takes calls, while callers see that its
        health is NOT_SERVING; then calls, and what goes on without, have `grace`
        seconds to end.
        """
        if self._watch is not None:
            self._watch.cancel()
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(lame_duck)
        loop = asyncio.get_running_loop()
        last_words = loop.call_later(max(grace - _LAST_WORDS, 0), self._draining)
        await asyncio.gather(self._grpc.stop(grace), self._end_of_rest(grace))
        last_words.cancel()
        # gRPC does not wait for what handlers do last; pools are closed after us.
        if self._chain.live:
            await asyncio.wait(self._chain.live, timeout=5)

    async def _end_of_rest(self, within: float) -> None:
        if self._idle is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._idle()

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY if self.is_ready else _CHECK_AGAIN)
            await self._check()

    async def _check(self) -> None:
        self.is_ready = all([await check() for check in self._checks])
        serving = health_pb2.HealthCheckResponse.SERVING
        refusing = health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set("", serving if self.is_ready else refusing)
