"""Work that costs the same for one as for many, done for many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mesh import errors

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Grouped(Generic[T, R]):
    """Does `work` for each item; while a group is at work, the next one gathers.

    So an item alone never waits for company. While groups have more than one, each next
    waits `pause` seconds for more. `work` returns a result for each, in order.
    """

    work: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    most: int
    pause: float = 0
    _busy: bool = False
    _waiting: list[tuple[T, asyncio.Future[R]]] = field(default_factory=list)
    _worker: "asyncio.Task[None] | None" = None

    async def do(self, item: T) -> R:
        """The result of `item`. Who leaves early loses only the answer.

        Raises what `work` does, and Unavailable when that was cancelled.
        """
        done: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return await done

    async def _run(self) -> None:
        group: Sequence[tuple[T, asyncio.Future[R]]] = ()
        try:
            while self._waiting:
                if self._busy:
                    await asyncio.sleep(self.pause)
                group, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
                self._busy = self.pause > 0 and len(group) > 1
                await self._do(group)
        finally:
            # Only when it was cancelled has it left any: they would wait for ever.
            left, self._waiting, self._worker = [*group, *self._waiting], [], None
            _tell(
                left,
                errors.Unavailable("UNAVAILABLE", "broken off before it was done", retry_after=1),
            )

    async def _do(self, group: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self.work([item for item, _ in group])
        except errors.MeshError as error:
            _tell(group, error)
        except Exception as error:
            if len(group) == 1:
                _tell(group, error)
                return
            for each in group:  # What one of them can't have must not be kept from others.
                await self._do([each])
        else:
            for (_, done), result in zip(group, results, strict=True):
                if not done.done():
                    done.set_result(result)


def _tell(group: Sequence[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
    for _, done in group:
        if not done.done():
            done.set_exception(error)
