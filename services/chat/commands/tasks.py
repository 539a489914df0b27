"""Background tasks: put on a queue with their generation, and worked off it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Never, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

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
from services.chat.commands.runner import DRAINING, Run, Runner, Work
from services.chat.commands.tell import Teller
from services.chat.domain.conversation import Ask, Terms
from services.chat.domain.generation import CANCELLED, Ending, Generation, Status
from services.chat.domain.models import Catalog
from services.chat.domain.provider import Prompt, QuotaSpent
from services.chat.domain.rows import Opening, Row, closing, consumption, pack_tail
from services.chat.store import generations, runners, turns
from services.chat.store.runners import Claim

T = TypeVar("T")

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("tasks")

# How often a task is tried: its provider may fail, and its worker die.
MOST_TRIES = 3
# When a worker may have taken some off the queue.
_ROOM_AFTER_S = 10.0
# A provider that wants a task to wait for longer is asked again sooner.
_LONGEST_WAIT_S = 300.0
# How long a task waits for PostgreSQL between two tries.
_STORED_AGAIN_S = 0.5
_SILENT = runners.SILENT.total_seconds()


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


class GaveUp(Exception):
    """The task has failed, and who looks after the queue should look at it."""


@dataclass(slots=True)
class Tasks:
    """The caller's background tasks."""

    database: Database
    replies: Replies
    generations: Generations
    # Of one account, that wait for a worker at once.
    most_waiting: int
    _turns: WeakValueDictionary[UUID, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def create(self, caller: Principal, terms: Terms, ask: Ask) -> tuple[UUID, str]:
        """Takes a task; returns its id and status. Raises as `Replies.reply` does.

        Raises ResourceExhausted when too many of the account wait.
        """
        work = await self.replies.prepare(caller, terms, ask)
        if not isinstance(work.prompt, Prompt):
            raise TypeError("a task is a prompt")
        # A key is never stored in the clear: the worker fetches it again.
        # A task is of its account and key, whatever becomes of the session or the secret.
        spender = replace(work.spender, secret_id="", session_id=None)
        job = Job(replace(work.prompt, key=None), spender, work.prompt.key is not None)
        opening = replace(work.opening, prompt=msgspec.json.encode(job).decode())

        async def put(connection: AsyncConnection) -> bool:
            waiting = await turns.waiting(connection, opening.user_id, opening.id)
            if waiting >= self.most_waiting:
                raise _too_many(self.most_waiting)
            turn = await turns.next_turn(connection, opening.user_id)
            there = await generations.open_all(connection, [replace(opening, turn=turn)])
            if there:
                await queue.put(connection, opening.id, turn)
            return bool(there)

        refused: errors.ResourceExhausted | None = None
        # One at a time of each account, or several would be given one turn.
        async with self._turns.setdefault(opening.user_id, asyncio.Lock()):
            try:
                if await self.database.run(put):
                    return opening.id, Status.PENDING
            except errors.ResourceExhausted as error:
                if opening.dedup_key is None:
                    raise
                refused = error  # But a repeat needs no room.
        twin = await self.replies.twin(opening)
        if twin is None:
            raise refused or errors.Unavailable(
                "UNAVAILABLE", "the same request ends just now", retry_after=1
            )
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


def _too_many(most: int) -> errors.ResourceExhausted:
    return errors.ResourceExhausted(
        "TOO_MANY_TASKS",
        f"{most} tasks of this account wait, which is all that may",
        metadata={"limit": str(most)},
        retry_after=_ROOM_AFTER_S,
    )


@dataclass(slots=True)
class Worker:
    """Runs tasks, as one process of several."""

    database: Database
    catalog: Catalog
    runner: Runner
    teller: Teller
    credentials: Credentials

    async def run(self, task_id: UUID) -> None:
        """Runs a task to its end. Raises Again when it is to wait, and GaveUp."""
        if task_id in self.runner.running:
            raise Again(_SILENT)
        try:
            claimed = await self._stored(lambda c: runners.claim(c, task_id, self.runner.id))
        except runners.StillRuns:
            # It may have lost it, and gets a turn by a wait that is never the same.
            raise Again(_SILENT * random.uniform(0.5, 1)) from None  # noqa: S311 - no secret
        if claimed is None:
            return
        reach("worker.claimed")
        if claimed.tries >= MOST_TRIES:
            text = f"the task was given up after {MOST_TRIES} tries"
            await self._fail(claimed, errors.Unavailable("TASK_GAVE_UP", text))
            raise GaveUp
        try:
            run = await self._begun(claimed)
        except errors.MeshError as error:
            if error.reason == "UNAVAILABLE":  # A part of ours is down: no fault of the task's.
                await self._put_back(claimed, tried=False)
            await self._fail(claimed, error)
            return
        except Exception as bug:  # The next release of a worker may know better.
            log.error("a task can't be begun", generation_id=str(task_id), exc_info=bug)
            await self._put_back(claimed, tried=True)
        try:
            await run.over()
        except asyncio.CancelledError:
            run.stop(DRAINING)
            raise
        if run.put_back:
            wait_s = min(run.wait_s, _LONGEST_WAIT_S)
            await self._put_back(claimed, tried=not run.is_drained, wait_s=wait_s)
        if run.taken:  # The job is another's too, by now, and not to be taken off the queue.
            raise Again(_SILENT)

    async def _begun(self, claimed: Claim) -> Run:
        """The task, running. Raises what keeps it from that."""

        def again(error: errors.MeshError) -> bool:
            passing = isinstance(error, errors.Unavailable | errors.DeadlineExceeded | QuotaSpent)
            return passing and claimed.tries + 1 < MOST_TRIES

        work = await self._work(claimed.opening)
        run = self.runner.take_over(work, claimed.base, claimed.given_up, again)
        if claimed.cancelled:  # While the worker before put it back.
            run.stop(CANCELLED)
        await asyncio.shield(run.opened)
        return run

    async def _work(self, opening: Opening) -> Work:
        job = msgspec.json.decode(opening.prompt or "", type=Job)
        model, prompt = self.catalog.find(opening.model, own_key=job.credential), job.prompt
        if job.credential:
            key = await self.credentials.of(opening.user_id, model.provider)
            prompt = replace(prompt, key=key)
        return Work(opening, model, prompt, job.spender)

    async def _put_back(self, claimed: Claim, *, tried: bool, wait_s: float = 0) -> Never:
        """Lets it wait for another try, `wait_s` at least. Raises Again."""
        task_id = claimed.opening.id
        await self._stored(lambda c: runners.put_back(c, task_id, self.runner.id, tried=tried))
        raise Again(max(2.0**claimed.tries, wait_s))

    async def _stored(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `work` returns, once PostgreSQL answers.

        Who gave up before that would leave the task to nobody: others take it for ours, and we
        do not run it.
        """
        while True:
            try:
                return await self.database.run(work)
            except errors.Unavailable:
                await asyncio.sleep(_STORED_AGAIN_S)

    async def _fail(self, claimed: Claim, error: errors.MeshError) -> None:
        """Ends a task that can't be run. What it took before is paid for."""
        mine, tokens = claimed.opening.run_by(self.runner.id), claimed.given_up
        log.warning("a task fails", generation_id=str(mine.id), reason=error.reason)
        ending = Ending(Status.FAILED, error.reason, mine.model, "error", tokens, error)
        reached, ended_at = tokens.total > 0, self.runner.clock()
        tail = pack_tail(claimed.base, [])
        closed = closing(mine, ending, tail, ended_at=ended_at, latency_ms=0, reached=reached)
        ended = await self._stored(lambda c: generations.close_all(c, [closed], {}))
        if closed.owed and ended:
            self.teller.tell(consumption(mine, closed))
