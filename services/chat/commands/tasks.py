"""Background tasks: put on a queue with their generation, and worked off it."""

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.db import Database
from mesh.failpoints import reach
from mesh.identity.principal import Principal
from services.chat import queue
from services.chat.commands.budget import Spender
from services.chat.commands.credentials import Credentials
from services.chat.commands.generations import Generations
from services.chat.commands.replies import Replies
from services.chat.commands.runner import DRAINING, Runner, Work
from services.chat.commands.tell import Teller
from services.chat.domain.conversation import Ask, Terms
from services.chat.domain.generation import Basis, Ending, Generation, Status, Tokens
from services.chat.domain.models import Catalog
from services.chat.domain.provider import Prompt
from services.chat.domain.rows import Opening, Row, closing, consumption, pack
from services.chat.store import generations, runners

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("tasks")

# How often a task is tried: when its provider fails, and when its worker dies.
MOST_TRIES = 3


class Job(msgspec.Struct, frozen=True):
    """What a worker is to ask, and who pays; `credential` when by a key that is stored."""

    prompt: Prompt
    spender: Spender
    credential: bool


class Again(Exception):
    """The task waits for another try, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        """Takes how long it waits at least."""
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


@dataclass(slots=True)
class Tasks:
    """The caller's background tasks."""

    database: Database
    replies: Replies
    generations: Generations

    async def create(self, caller: Principal, terms: Terms, ask: Ask) -> tuple[UUID, str]:
        """Takes a task; returns its id and status. Raises as `Replies.reply` does."""
        work = await self.replies.prepare(caller, terms, ask)
        if not isinstance(work.prompt, Prompt):
            raise TypeError("a task is a prompt")
        # A key is never stored in the clear: the worker fetches it again.
        job = Job(replace(work.prompt, key=None), work.spender, work.prompt.key is not None)
        opening = replace(work.opening, prompt=msgspec.json.encode(job).decode())

        async def put(connection: AsyncConnection) -> bool:
            there = await generations.open_all(connection, [opening])
            if there:
                await queue.put(connection, opening.id)
            return bool(there)

        if await self.database.run(put):
            return opening.id, Status.PENDING
        twin = await self.replies.twin(opening)
        if twin is None:
            raise errors.Unavailable("UNAVAILABLE", "the same request ends just now", retry_after=1)
        return twin.id, twin.status

    async def get(self, user_id: UUID, task_id: UUID) -> tuple[Row, Generation]:
        """A task, and what came of it until now. Raises NotFound."""
        return await self.generations.get(user_id, await self._known(user_id, task_id))

    async def cancel(self, user_id: UUID, task_id: UUID) -> tuple[Row, Generation]:
        """Ends a task, and waits for that. Raises NotFound, Unavailable."""
        return await self.generations.cancel(user_id, await self._known(user_id, task_id))

    async def _known(self, user_id: UUID, task_id: UUID) -> UUID:
        try:
            return (await self.generations.row(user_id, task_id)).id
        except errors.NotFound:
            raise errors.NotFound("TASK_NOT_FOUND", "no such task") from None


@dataclass(slots=True)
class Worker:
    """Runs tasks, as one process of several."""

    database: Database
    catalog: Catalog
    runner: Runner
    teller: Teller
    credentials: Credentials

    async def run(self, task_id: UUID, tries: int) -> None:
        """Runs a task to its end, after `tries` before. Raises Again when it is to wait."""
        try:
            claimed = await self.database.run(lambda c: runners.claim(c, task_id, self.runner.id))
        except runners.StillRuns:
            raise Again(runners.SILENT.total_seconds()) from None
        if claimed is None:
            return
        reach("worker.claimed")
        opening, base, given_up = claimed
        last = tries + 1 >= MOST_TRIES

        def again(error: errors.MeshError) -> bool:
            passing = isinstance(error, errors.Unavailable | errors.DeadlineExceeded)
            return passing and not last

        try:
            work = await self._work(opening)
            run = self.runner.take_over(work, base, given_up, again)
            await asyncio.shield(run.opened)
        except errors.MeshError as error:
            if again(error):
                await self._put_back(task_id)
                raise Again(2.0**tries) from None
            await self._fail(opening, given_up, error)
            return
        try:
            await run.over()
        finally:
            run.stop(DRAINING)  # Of no effect but where this is cancelled.
        if run.put_back:
            await self._put_back(task_id)
            raise Again(2.0**tries)

    async def give_up(self, task_id: UUID) -> None:
        """Ends a task whose workers die of it."""
        text = f"the task was given up after {MOST_TRIES} tries"
        claimed = await self.database.run(lambda c: runners.claim(c, task_id, self.runner.id))
        if claimed is not None:
            opening, _, given_up = claimed
            log.error("a task is given up", generation_id=str(task_id))
            await self._fail(opening, given_up, errors.Unavailable("TASK_GAVE_UP", text))

    async def _work(self, opening: Opening) -> Work:
        job = msgspec.json.decode(opening.prompt or "", type=Job)
        model, prompt = self.catalog.find(opening.model, own_key=job.credential), job.prompt
        if job.credential:
            key = await self.credentials.of(opening.user_id, model.provider)
            prompt = replace(prompt, key=key)
        return Work(opening, model, prompt, job.spender)

    async def _put_back(self, task_id: UUID) -> None:
        await self.database.run(lambda c: runners.put_back(c, task_id, self.runner.id))

    async def _fail(self, opening: Opening, given_up: Tokens, error: errors.MeshError) -> None:
        """Ends a task that can't be run. What it took before is paid for."""
        mine, ended_at = opening.run_by(self.runner.id), self.runner.clock()
        tokens = replace(given_up, basis=Basis.CRASH)
        ending = Ending(Status.FAILED, error.reason, opening.model, "error", tokens, error)
        closed = closing(
            mine, ending, pack([]), ended_at=ended_at, latency_ms=0, reached=tokens.total > 0
        )
        ended = await self.database.run(lambda c: generations.close_all(c, [closed], {}))
        if closed.owed and ended:
            self.teller.tell(consumption(mine, closed))
