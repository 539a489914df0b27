"""Writes down how generations ended, many at a time, and tells usage.

While one transaction commits, the endings that arrive meanwhile wait for the
next. Where they come in company, each also waits 10 ms for more: a write costs the
same for one as for ten. An ending alone is written at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Self

import grpc
import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, InternalError, OperationalError

from khesht.usage.v1 import usage_internal_service_pb2 as pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.db import Database
from mesh.fields import timestamp
from services.chat import store
from services.chat.domain.records import Consumption, Settlement

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("settle")

_MOST_AT_ONCE = 200
_TRY_AGAIN_AFTER = 1.0
_WRITTEN_TOGETHER = 0.01
_TOLD_TOGETHER = 0.1
_WRITTEN_WITHIN = 10.0
# What a process that died left untold is told by any other within this time.
_SWEEP_EVERY = 10.0


@dataclass(slots=True)
class Settler:
    """One per process. `settle` is what runners call; the rest is its own tasks."""

    database: Database
    usage: "pb_grpc.UsageInternalServiceAsyncStub"
    _queue: asyncio.Queue[tuple[Settlement, asyncio.Future[None]]] = field(
        default_factory=asyncio.Queue
    )
    _untold: asyncio.Queue[Consumption] = field(default_factory=asyncio.Queue)

    @classmethod
    @asynccontextmanager
    async def opened(cls, database: Database, usage: grpc.aio.Channel) -> AsyncIterator[Self]:
        """A settler at work; at the end it writes what is still waiting, while it can."""
        settler = cls(database, pb_grpc.UsageInternalServiceStub(usage))
        writer = asyncio.create_task(settler._write_all())
        teller = asyncio.create_task(settler._tell_all())
        try:
            yield settler
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WRITTEN_WITHIN):
                    await settler._queue.join()
                    await settler._untold.join()
            writer.cancel()
            teller.cancel()

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Done when `settlement` is committed, however long that takes."""
        done = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((settlement, done))
        return done

    async def _write_all(self) -> None:
        busy = False
        while True:
            waiting = [await self._queue.get()]
            if busy:
                await asyncio.sleep(_WRITTEN_TOGETHER)
            while not self._queue.empty() and len(waiting) < _MOST_AT_ONCE:
                waiting.append(self._queue.get_nowait())
            busy = len(waiting) > 1
            settlements = [settlement for settlement, _ in waiting]
            await self._write(settlements)
            for settlement, done in waiting:
                if settlement.consumption:
                    self._untold.put_nowait(settlement.consumption)
                if not done.done():
                    done.set_result(None)
                self._queue.task_done()

    async def _write(self, settlements: Sequence[Settlement]) -> None:
        while not await self._written(settlements):  # noqa: ASYNC110 - what is awaited is PostgreSQL
            await asyncio.sleep(_TRY_AGAIN_AFTER)

    async def _written(self, settlements: Sequence[Settlement]) -> bool:
        try:
            # One statement tells of generations that leave no messages: most of them.
            plain = all(settlement.exchange is None for settlement in settlements)
            run = self.database.run_one if plain else self.database.run
            await run(lambda c: store.settle(c, settlements))
        except (errors.Unavailable, OperationalError, InternalError) as error:
            # No fault of a row's: the disk is full, or all is read-only. It will pass.
            log.warning("endings wait to be stored", count=len(settlements), error=str(error))
            return False
        except Exception as error:
            await self._isolate(settlements, error)
        return True

    async def _isolate(self, settlements: Sequence[Settlement], error: Exception) -> None:
        """Finds which of a group can't be stored, so that it takes no other with it.

        Of that one the messages are given up first: a chat may have been deleted
        while its reply was written, and what it cost stays.
        """
        if len(settlements) > 1:
            for each in settlements:
                await self._write([each])
            return
        (alone,) = settlements
        if alone.exchange is not None:
            await self._write([replace(alone, exchange=None)])
        if alone.exchange is None or not isinstance(error, IntegrityError):
            log.error(
                "an ending can't be stored", generation_id=str(alone.generation_id), exc_info=error
            )

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
        """Tells what is left in the outbox, a portion at a time, past what usage refuses."""
        after: store.Place | None = None
        while True:
            try:
                left = await self._left(after)
            except (errors.Unavailable, DBAPIError):
                return
            if left:
                await self._tell(left)
            if len(left) < _MOST_AT_ONCE:
                return
            after = (left[-1].created_at, left[-1].generation_id)

    async def _left(self, after: store.Place | None) -> Sequence[Consumption]:
        return await self.database.run_one(
            lambda c: store.untold(c, after=after, limit=_MOST_AT_ONCE)
        )

    async def _tell(self, used: Sequence[Consumption]) -> None:
        """Tells usage once; what it does not take now, a sweep tells again."""
        request = pb.RecordUsageRequest(consumptions=map(_to_pb, used))
        try:
            await self.usage.RecordUsage(request, timeout=5)
            await self.database.run_one(lambda c: store.forget(c, [u.generation_id for u in used]))
        except grpc.aio.AioRpcError as error:
            await self._refused(used, error)
        except (errors.Unavailable, DBAPIError) as error:
            log.warning("usage is told later", records=len(used), error=type(error).__name__)

    async def _refused(self, used: Sequence[Consumption], error: grpc.aio.AioRpcError) -> None:
        """A record that usage does not take must keep no other from it."""
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            log.warning("usage is told later", records=len(used), error=error.code().name)
        elif len(used) > 1:
            for each in used:
                await self._tell([each])
        else:
            generation_id = str(used[0].generation_id)
            log.error("usage refuses a record", generation_id=generation_id, text=error.details())


def _to_pb(used: Consumption) -> pb.Consumption:
    return pb.Consumption(
        generation_id=str(used.generation_id),
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
    )
