"""Tells usage what generations used: each exactly once, whatever dies meanwhile.

What is to be told is stored with the ending of its generation, and stays marked
until usage has taken it; usage takes each generation once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Self

import grpc
import structlog
from sqlalchemy.exc import DBAPIError

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.db import Database
from mesh.failpoints import reach
from mesh.fields import timestamp
from services.chat.domain.rows import Consumption
from services.chat.domain.tokens import KindPrices, TokenKinds
from services.chat.store import generations

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("tell")

_MOST_AT_ONCE = 200
_TOLD_TOGETHER = 0.1
_TOLD_WITHIN = 10.0
# What a process that died left untold is told by any other within this time.
_SWEEP_EVERY = 10.0
# Portions that usage does not answer before a sweep takes it to be away, and what is kept in
# memory meanwhile: all of it is stored.
_MOST_UNANSWERED = 3
_MOST_WAITING = 10_000
# Where one of many may be to blame.
_OF_A_RECORD = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)


@dataclass(slots=True)
class Teller:
    """One per process."""

    database: Database
    usage: "pb_grpc.UsageInternalServiceAsyncStub"
    _untold: asyncio.Queue[Consumption] = field(
        default_factory=lambda: asyncio.Queue(_MOST_WAITING)
    )

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Self]:
        """Tells meanwhile; at the end it tells what is still waiting, while it can."""
        teller = asyncio.create_task(self._tell_all())
        try:
            yield self
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TOLD_WITHIN):
                    await self._untold.join()
            teller.cancel()

    def tell(self, used: Consumption) -> None:
        """Tells usage, soon."""
        with contextlib.suppress(asyncio.QueueFull):  # A sweep tells what has no room.
            self._untold.put_nowait(used)

    async def _tell_all(self) -> None:
        loop = asyncio.get_running_loop()
        sweep_at = loop.time()
        while True:
            if loop.time() >= sweep_at:
                await self._sweep()
                sweep_at = loop.time() + _SWEEP_EVERY
            try:
                async with asyncio.timeout_at(sweep_at):
                    used = [await self._untold.get()]
            except TimeoutError:
                continue
            # Nobody waits for this, so it may wait to be told with others.
            await asyncio.sleep(_TOLD_TOGETHER)
            while not self._untold.empty() and len(used) < _MOST_AT_ONCE:
                used.append(self._untold.get_nowait())
            await self._tell(used)
            for _ in used:
                self._untold.task_done()

    async def _sweep(self) -> None:
        """Tells what was left untold, a portion at a time, past what usage refuses."""
        after: generations.Place | None = None
        unanswered = 0
        while True:
            try:
                left = await self._left(after)
            except (errors.Unavailable, DBAPIError):
                return
            if left and not await self._tell(left):
                unanswered += 1
            if len(left) < _MOST_AT_ONCE or unanswered == _MOST_UNANSWERED:
                return
            after = (left[-1].created_at, left[-1].id)

    async def _left(self, after: generations.Place | None) -> Sequence[Consumption]:
        return await self.database.run_one(
            lambda c: generations.untold(c, after=after, limit=_MOST_AT_ONCE)
        )

    async def _tell(self, used: Sequence[Consumption]) -> bool:
        """Tells usage once, and whether it answered; what it does not take a sweep tells again."""
        try:
            request = pb.RecordUsageRequest(consumptions=map(_to_pb, used))
            reach("chat.telling")
            await self.usage.RecordUsage(request, timeout=5)
            reach("chat.told")
            await self.database.run_one(lambda c: generations.told(c, [u.id for u in used]))
        except (errors.Unavailable, DBAPIError) as error:
            log.warning("usage is told later", records=len(used), error=type(error).__name__)
            return False
        except grpc.aio.AioRpcError as error:
            if error.code() not in _OF_A_RECORD:
                log.warning("usage is told later", records=len(used), error=error.code().name)
                return False
            await self._isolate(used, error)
        except Exception as bug:  # It must not end the telling of all others.
            await self._isolate(used, bug)
        return True

    async def _isolate(self, used: Sequence[Consumption], error: Exception) -> None:
        """A record that usage does not take must keep no other from it."""
        if len(used) > 1:
            for each in used:
                await self._tell([each])
        else:
            log.error("usage takes no record", generation_id=str(used[0].id), exc_info=error)


def _to_pb(used: Consumption) -> pb.Consumption:
    return pb.Consumption(
        generation_id=str(used.id),
        request_id=used.request_id,
        user_id=str(used.user_id),
        key_id=str(used.key_id) if used.key_id else "",
        model=used.model,
        provider=used.provider,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        prompt_price=used.prompt_price,
        completion_price=used.completion_price,
        status=used.status,
        basis=used.basis,
        latency_ms=used.latency_ms,
        created_at=timestamp(used.created_at),
        kinds=_kinds(used.token_kinds),
        kind_prices=_kind_prices(used.kind_prices),
    )


def _kinds(text: str | None) -> pb.TokenKinds | None:
    return pb.TokenKinds(**asdict(TokenKinds.decode(text))) if text else None


def _kind_prices(text: str | None) -> pb.KindPrices | None:
    return pb.KindPrices(**asdict(KindPrices.decode(text))) if text else None
