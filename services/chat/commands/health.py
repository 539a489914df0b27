"""How the mesh does: asks every other service, at most once a second."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

# Seconds that a service has to answer in, and that an answer is told again for.
_PATIENCE = 1.0
_FRESH = 1.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What is wrong with each service, "" for nothing."""

    services: Mapping[str, str]

    @property
    def problems(self) -> list[str]:
        """What is wrong, in sentences that begin with the service's name."""
        return [f"{name} {wrong}" for name, wrong in self.services.items() if wrong]


class Health:
    """Knows how the mesh does, itself included."""

    def __init__(
        self, others: Mapping[str, grpc.aio.Channel], is_ready: Callable[[], bool]
    ) -> None:
        """Takes channels to the other services, which it does not close, and how chat itself does."""
        self._others = {name: health_pb2_grpc.HealthStub(each) for name, each in others.items()}
        self._is_ready = is_ready
        self._asked: asyncio.Task[Condition] | None = None
        self._told_until = 0.0

    async def condition(self) -> Condition:
        """How all services do, by a look that is at most a second old and shared by all who ask."""
        if self._asked is None or (self._asked.done() and time.monotonic() > self._told_until):
            self._asked = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asked)  # One who leaves ends it for nobody else.

    async def _ask(self) -> Condition:
        answers = await asyncio.gather(*map(_wrong, self._others.values()))
        services = dict(zip(self._others, answers, strict=True))
        services["chat"] = "" if self._is_ready() else "is not ready"
        self._told_until = time.monotonic() + _FRESH
        return Condition(dict(sorted(services.items())))


async def _wrong(service: health_pb2_grpc.HealthStub) -> str:
    try:
        answer = await service.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE)
    except grpc.aio.AioRpcError:
        return "does not answer"
    return "" if answer.status == health_pb2.HealthCheckResponse.SERVING else "is not ready"
