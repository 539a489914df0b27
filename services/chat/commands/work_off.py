"""Takes tasks off the queue and has them run, as long as this process lives."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Never, Self
from uuid import UUID

import procrastinate
import structlog
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Job
from procrastinate.manager import JobManager
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from mesh.patience import Patience
from services.chat import queue
from services.chat.commands.runner import now
from services.chat.commands.tasks import Again, GaveUp, Worker

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("worker")

# A worker that was not heard of for this long is dead; its tasks are another's then.
_SILENT = 20.0
_BEAT_EVERY = 5.0
_LOOK_EVERY = 5.0
# As many as others need to say that they live, after an outage.
_LOOKS_FIRST = 3
# New tasks are told of at once; those that wait for another try are looked for.
_FETCH_EVERY = 1.0
_MOST_DOUBLED = 4  # 16 seconds: what failed was no fault of the task, and is soon well.
# More than a process that is stopped has for it: who is drained ends before.
_FINISHED_WITHIN = 30.0
_DRAINED_WITHIN = 10.0


class Retry(BaseRetryStrategy):
    """Again when the task says so, and whenever something else failed: that is no fault of its."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """When it is tried again, or None for never."""
        if isinstance(exception, GaveUp):
            return None
        if isinstance(exception, Again):
            seconds = exception.seconds
        else:
            seconds = 2.0 ** min(job.attempts, _MOST_DOUBLED)
        return RetryDecision(retry_in={"seconds": math.ceil(seconds)})


@dataclass(slots=True)
class Stalled:
    """The tasks of workers that died."""

    jobs: JobManager
    clock: Callable[[], datetime] = now
    _patience: Patience = field(
        default_factory=lambda: Patience(_LOOKS_FIRST, timedelta(seconds=_SILENT))
    )

    async def look(self) -> None:
        """Gives them to others. Every 5 seconds."""
        with self._patience.look(self.clock()):
            stalled = await self.jobs.get_stalled_jobs(seconds_since_heartbeat=_SILENT)
        if not self._patience.is_over:
            return
        for job in stalled:
            await self.jobs.retry_job(job)


@dataclass(slots=True)
class WorkOff:
    """The queue's worker in this process, which runs `concurrency` tasks at once."""

    url: str
    worker: Worker
    concurrency: int
    _tasks: "list[asyncio.Task[Never]]" = field(default_factory=list)
    _leaves: bool = False

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Self]:
        """Works meanwhile."""
        app = queue.opened(self.url, connections=4)

        @app.task(name=queue.TASK, queue=queue.NAME, retry=Retry())
        async def run(task_id: str) -> None:
            await self.worker.run(UUID(task_id))

        async with app.open_async():
            self._tasks += (
                asyncio.create_task(self._work(app)),
                asyncio.create_task(self._watch(app)),
            )
            try:
                yield self
            finally:
                self.worker.runner.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAINED_WITHIN):
                        await self.finish()

    async def finish(self) -> None:
        """Takes no more tasks, and returns when those that run have ended or were put back."""
        if not self._leaves:  # Once more would break off what is being finished.
            self._leaves = True
            for task in self._tasks:
                task.cancel()
        await asyncio.wait(self._tasks)

    async def _work(self, app: procrastinate.App) -> Never:
        while True:
            try:
                await app.run_worker_async(
                    queues=[queue.NAME],
                    concurrency=self.concurrency,
                    fetch_job_polling_interval=_FETCH_EVERY,
                    install_signal_handlers=False,
                    shutdown_graceful_timeout=_FINISHED_WITHIN,
                    delete_jobs="successful",
                    update_heartbeat_interval=_BEAT_EVERY,
                    stalled_worker_timeout=_SILENT,
                )
            except ProcrastinateException as error:  # The database went away; it comes again.
                log.warning("the queue waits", error=type(error).__name__)
            await asyncio.sleep(1)

    async def _watch(self, app: procrastinate.App) -> Never:
        stalled = Stalled(app.job_manager)
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await stalled.look()
            except Exception as error:
                log.warning("stalled tasks wait", error=type(error).__name__)
