"""The RPC being served now: who calls, how long it may take, what to answer beside."""

import asyncio
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from mesh import errors
from mesh.identity.principal import Principal

# The inner time-out should be the one that is reported, so it ends this much
# before the caller's own.
_WAY_BACK = 0.020
_TOO_LITTLE = 0.100

_current: ContextVar["Call"] = ContextVar("call")


@dataclass(slots=True)
class Call:
    """One RPC on its way through a service.

    `began` is of `time.perf_counter`, `deadline` of the event loop's clock, which
    is coarser.
    """

    method: str
    metadata: dict[str, str]
    began: float
    deadline: float
    request_id: str
    peer: str = ""
    principal: Principal | None = None
    # Sent as response headers, with the first message or with the error.
    headers: list[tuple[str, str]] = field(default_factory=list)
    # What to beware of, by what it is about; told in a header beside those.
    warnings: dict[str, str] = field(default_factory=dict)
    # What was read of the request to find its model, for who answers it.
    parsed: Any = None

    @property
    def caller(self) -> Principal:
        """Who calls. Only methods that want a credential may ask."""
        if self.principal is None:
            raise RuntimeError(f"{self.method} is open: it has no caller")
        return self.principal

    @property
    def told(self) -> list[tuple[str, str]]:
        """The response headers, with what to beware of in one of them."""
        if not self.warnings:
            return self.headers
        return [*self.headers, ("x-khesht-warning", ", ".join(self.warnings.values()))]

    @property
    def transcoded(self) -> bool:
        """Whether the caller speaks JSON over HTTP: the edge made it an RPC."""
        return "x-envoy-original-path" in self.metadata

    @property
    def client_address(self) -> str:
        """The client's network address as the edge saw it, or "" inside the mesh."""
        return self.metadata.get("x-khesht-client-address", "")

    def time_left(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self.deadline - asyncio.get_running_loop().time()

    def onward(self, at_most: float) -> dict[str, Any]:
        """Keyword arguments for a call to another service on behalf of this one.

        The deadline is the smaller of `at_most` seconds and what is left.
        """
        return {
            "timeout": min(at_most, max(self.time_left(), 0.001)),
            "metadata": (("x-request-id", self.request_id),),
        }


def current() -> Call:
    """The call that this task serves. Raises LookupError outside of one."""
    return _current.get()


def begin(method: str, context: Any, limit: float) -> Call:  # noqa: ANN401 - gRPC's context is untyped
    """Makes the call of `context` current; it may take `limit` seconds at most."""
    metadata = dict(context.invocation_metadata() or ())
    now = asyncio.get_running_loop().time()
    given = context.time_remaining()
    seconds = limit if given is None else min(given - _WAY_BACK, limit)
    request_id = metadata.get("x-request-id") or f"mesh-{time.time_ns():x}"
    call = Call(method, metadata, time.perf_counter(), now + seconds, request_id)
    _current.set(call)
    return call


def check_time(call: Call) -> None:
    """Raises DeadlineExceeded when too little time is left to begin."""
    if call.time_left() < _TOO_LITTLE:
        raise errors.no_time()
