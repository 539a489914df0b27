"""Runs generations: opens them, asks the provider, appends what comes, ends each once."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

import structlog

from mesh import errors, memory
from mesh.failpoints import reach
from services.chat.commands.budget import LIMITED_BY_BUDGET, Budgets, Hold, Spender
from services.chat.commands.meter import Meter
from services.chat.commands.write import LEAST_UNWRITTEN_BYTES, Draft, Writer
from services.chat.domain import history, price
from services.chat.domain.generation import (
    CANCELLED,
    INTERRUPTED,
    Earlier,
    Ending,
    Generation,
    Status,
    interrupted,
)
from services.chat.domain.models import Model
from services.chat.domain.provider import (
    Answering,
    Part,
    Prompt,
    Relay,
    Report,
    Unreached,
    too_large,
)
from services.chat.domain.records import Exchange
from services.chat.domain.rows import Closing, Opening, closing, exchange
from services.chat.domain.tokens import Basis, Tokens
from services.chat.providers.router import Router

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("generation")

# How long readers wait for an ending to be committed before they are told of it.
_STORED_WITHIN = 5.0
_FINISHED_WITHIN = 10.0
# Tokens past its limit after which a reply is broken off: by then its provider surely goes on
# against what it was sent. They are not charged.
_OVERRUN_TOKENS = 64
# After replies of so many bytes together freed memory is given back.
_GIVEN_BACK_BYTES = 8 << 20

DRAINING = "DRAINING"


def now() -> datetime:
    """The time that chat works by."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Work:
    """A generation to be run: as it is opened, what to ask of which model, and who pays."""

    opening: Opening
    model: Model
    prompt: Prompt | Relay
    spender: Spender


@dataclass(slots=True)
class Runner:
    """The generations that run in this process, which is known as `id`."""

    id: UUID
    router: Router
    writer: Writer
    budgets: Budgets
    meter: Meter
    # Bytes of text, and of what is relayed for it, that one generation may have.
    most_bytes: int = 64 << 20
    clock: Callable[[], datetime] = now
    # Where readers who are behind read what is not in memory any more.
    earlier: Earlier | None = None
    running: dict[UUID, "Run"] = field(default_factory=dict)
    _ended_bytes: int = 0

    def start(self, work: Work) -> "Run":
        """Runs `work`, which ends whatever happens; await `opened` before all else."""
        opening = work.opening.run_by(self.id)
        return self._start(Run(self, replace(work, opening=opening)))

    def take_over(
        self, work: Work, base: int, given_up: Tokens, again: Callable[[errors.MeshError], bool]
    ) -> "Run":
        """Runs a task that is open already; its parts begin after `base`.

        It is put back, and not ended, when it fails without a word and `again` says so.
        """
        opening = work.opening.run_by(self.id)
        run = Run(self, replace(work, opening=opening), given_up=given_up, again=again)
        run.draft.seq_written = run.generation.base = base
        return self._start(run)

    def _start(self, run: "Run") -> "Run":
        generation_id = run.generation.id
        self.running[generation_id] = run
        run.task = asyncio.create_task(run.run())
        run.task.add_done_callback(lambda _: self._ended(run))
        return run

    def _ended(self, run: "Run") -> None:
        del self.running[run.generation.id]
        self._ended_bytes += run.draft.size
        if self._ended_bytes > _GIVEN_BACK_BYTES:  # What they took would stay with this process.
            self._ended_bytes = 0
            memory.give_back()

    def cancel(self, generation_id: UUID) -> None:
        """Ends a generation because somebody wants it ended, if it runs here."""
        run = self.running.get(generation_id)
        if run is not None:
            run.stop(CANCELLED)

    @property
    def asking(self) -> set[UUID]:
        """Those whose provider is being asked: they are stored as running, and here."""
        return {generation_id for generation_id, run in self.running.items() if run.is_asking}

    def lose(self, ids: Iterable[UUID]) -> None:
        """Stops asking for generations that others have ended, or begun anew."""
        for generation_id in ids:
            run = self.running.get(generation_id)
            if run is not None:
                run.stop(INTERRUPTED)

    async def finish(self) -> None:
        """Ends what still runs and waits until it is stored, 10 seconds at most."""
        self.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISHED_WITHIN):
                await self.idle()

    async def idle(self) -> None:
        """Returns when nothing runs any more."""
        while tasks := {run.task for run in self.running.values() if run.task is not None}:
            await asyncio.wait(tasks)

    def drain(self) -> None:
        """Ends what still runs, because this process is being stopped."""
        for run in self.running.values():
            run.stop(DRAINING)


class Run:
    """One generation that runs here."""

    def __init__(
        self,
        runner: Runner,
        work: Work,
        *,
        given_up: Tokens = price.NOTHING_GIVEN_UP,
        again: Callable[[errors.MeshError], bool] | None = None,
    ) -> None:
        """Prepares `work`; it is a task, opened already, when `again` is given."""
        opening = work.opening
        self.generation = Generation(opening.id, opening.origin, earlier=runner.earlier)
        self.draft = Draft(opening, self.generation)
        self.task: asyncio.Task[None] | None = None
        # Whether it is stored and runs, False when its caller asked for the same before.
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.put_back = False
        # Seconds that its provider wants to be left alone for, where it was put back for that.
        self.wait_s = 0.0
        # Whether another process runs it by now.
        self.taken = False
        # Who waits for it, and whether it goes on when nobody does.
        self.waiting = 0
        self.lasts = False
        self._runner = runner
        self._work = work
        self._given_up = given_up
        self._again = again
        # As it is sent: with a limit where money is held.
        self._prompt = work.prompt
        self._answering: Model | None = None
        self._left_out = work.prompt.left_out if isinstance(work.prompt, Prompt) else 0
        self.hold: Hold | None = None
        self._began = time.perf_counter()
        self._reached = True
        self.is_asking = False
        self._why = ""
        self._refused: errors.MeshError | None = None

    @property
    def spender(self) -> Spender:
        """Who asked for it, and pays."""
        return self._work.spender

    async def hold_late(self, budgets: Budgets, spender: Spender) -> Hold | None:
        """Money for it, which had none so far, if `spender` has a budget by now.

        Raises ResourceExhausted when there is not enough, and Unavailable.
        """
        opening, tokens = self.draft.opening, self.draft.tokens.completion
        most = price.Price.highest(self._prompt, [self._answering or self._work.model])
        return await budgets.hold_running(opening, spender, most, tokens)

    def stop(self, why: str) -> None:
        """Ends it for the reason `why`. Does nothing once it is ending."""
        self._stop(why, None)

    def refuse(self, error: errors.MeshError) -> None:
        """Ends it because its caller may not have it any more. Does nothing once it is ending.

        Where money ran out it has failed; otherwise somebody took the right back, and it
        is cancelled.
        """
        self._stop(error.reason, error)

    def _stop(self, why: str, error: errors.MeshError | None) -> None:
        if not self._why:
            self._why, self._refused = why, error
        if self.is_asking and self.task is not None:
            self.task.cancel()

    @property
    def is_drained(self) -> bool:
        """Whether it was ended because its process is being stopped."""
        return self._why == DRAINING

    async def over(self) -> None:
        """Returns when it has ended, or was put back."""
        if self.task is not None:
            await asyncio.shield(self.task)

    async def run(self) -> None:
        """Opens, asks, stores the ending, then ends; only the asking can be interrupted."""
        try:
            if not await self._open():
                self.opened.set_result(False)
                return
        except Exception as error:
            self.opened.set_exception(error)
            # Nobody may wait for it any more.
            self.opened.exception()
            return
        self.opened.set_result(True)
        reach("chat.opened")
        ending = await self._outcome()
        if self._is_put_back(ending):
            self.put_back = True
            if ending.error is not None:
                self.wait_s = ending.error.retry_after or 0
            await self._release()
            return
        written = self._runner.writer.end(
            self.draft, lambda tail: self._closing(ending, tail), self._kept
        )
        done, _ = await asyncio.wait({written}, timeout=_STORED_WITHIN)
        if not done:
            log.error("an ending waits to be stored", generation_id=str(self.generation.id))
        self.generation.end(self.draft.ended_as or ending)
        if not self._is_owed:
            await self._release()
        elif self._work.spender.token_limit is not None:
            await self._runner.meter.spend(self._work.spender, ending.tokens.total)
        await written  # Until then it is this process's to end, and a task's job stays.
        self.taken = self.draft.lost and self.draft.ended_as is None

    async def _open(self) -> bool:
        work, budgets = self._work, self._runner.budgets
        self.hold = await budgets.hold(
            work.opening, work.spender, work.model, work.prompt, self._given_up
        )
        if self.hold is not None:
            self._prompt = work.prompt.limited(self.hold.limit)
            if isinstance(self._prompt, Relay) and self.hold.lowered:
                self._prompt = replace(self._prompt, warning=LIMITED_BY_BUDGET)
        self._warn()
        reach("chat.held")
        if self._again is not None:
            return True
        there = False
        try:
            there = await self._runner.writer.open(work.opening)
        finally:
            if not there:
                await self._release()
        return there

    async def _release(self) -> None:
        if self.hold is not None:
            await self._runner.budgets.release(self.hold)

    async def _outcome(self) -> Ending:
        if self._why:
            self._reached = False
            return self._stopped()
        self.is_asking = True
        try:
            report = await self._ask()
        except asyncio.CancelledError:
            return self._stopped()
        except errors.MeshError as error:
            self._reached = not isinstance(error, Unreached)
            return self._broken(Status.FAILED, error.reason, error)
        except Exception as bug:
            log.error("generation", generation_id=str(self.generation.id), exc_info=bug)
            unknown = errors.MeshError("INTERNAL", f"internal error {self.generation.id.hex}")
            return self._broken(Status.FAILED, unknown.reason, unknown)
        finally:
            self.is_asking = False
        return Ending(Status.COMPLETED, "", report.model, report.finish_reason, self._tokens())

    async def _ask(self) -> Report:
        draft, writer = self.draft, self._runner.writer
        work, router = self._work, self._runner.router
        asked = router.stream(work.model, self._prompt, work.spender.user_id)
        async with aclosing(asked) as parts:
            async for part in parts:
                match part:
                    case Part():
                        grown = draft.count(part)
                        if draft.append(part):
                            reach("chat.part")
                            writer.note(draft)
                            if draft.size > self._runner.most_bytes:
                                raise too_large(draft.opening.provider)
                            if draft.unwritten > LEAST_UNWRITTEN_BYTES:
                                await writer.room(draft, len(self._runner.running))
                        if grown and self.hold is not None and not self._prompt.whole:
                            await self._check(self.hold)
                    case Answering(model, cut):
                        if self._answering is not None:
                            draft.forget()
                        self._answering = model
                        draft.opening = draft.opening.answered_by(model)
                        self._note_cut(cut)
                        reach("chat.first_part")
                    case Report(tokens=tokens):
                        if tokens is not None:
                            draft.report(tokens)
                        return part
        raise AssertionError("a provider's stream ends with its report")

    def _note_cut(self, cut: Prompt | None) -> None:
        """Notes what was left out for the model that answers, beyond what was so before."""
        if cut is not None and cut.left_out != self._left_out:
            self._left_out = cut.left_out
            opening = self.draft.opening
            self.draft.opening = replace(opening, prompt_estimate=cut.size.tokens)
            self._warn()

    def _warn(self) -> None:
        held = self.hold.warnings if self.hold is not None else ""
        warnings = (held, history.warning_of(self._left_out))
        self.generation.warning = ", ".join(each for each in warnings if each)

    async def _check(self, hold: Hold) -> None:
        """Keeps what is written within its hold. Raises what ends it otherwise."""
        if not hold.price.limited:
            if self.draft.tokens.completion > hold.covers:
                await self._runner.budgets.extend(hold)
            return
        if self.draft.sure_tokens <= hold.covers + _OVERRUN_TOKENS:
            return
        provider = self.draft.opening.provider
        if hold.lowered:
            raise errors.ResourceExhausted(
                "BUDGET_EXCEEDED",
                f"the money that was left is used up, and {provider} went on",
                metadata={"provider": provider},
            )
        raise errors.Unavailable(
            "PROVIDER_OVERRAN",
            f"{provider} wrote more than it was allowed to",
            metadata={"provider": provider},
        )

    def _stopped(self) -> Ending:
        if self.is_drained:
            draining = errors.Unavailable(DRAINING, "the server is restarting", retry_after=1)
            return self._broken(Status.FAILED, DRAINING, draining)
        if self._why == INTERRUPTED:
            return self._broken(Status.FAILED, INTERRUPTED, interrupted())
        if isinstance(self._refused, errors.ResourceExhausted):
            return self._broken(Status.FAILED, self._why, self._refused)
        return self._broken(Status.CANCELLED, self._why, self._refused)

    def _broken(self, status: Status, reason: str, error: errors.MeshError | None) -> Ending:
        finish = "cancelled" if status is Status.CANCELLED else "error"
        model = self.draft.opening.model
        return Ending(status, reason, model, finish, self._tokens(), error)

    def _tokens(self) -> Tokens:
        """What is charged: nothing that can't be so, whoever counted."""
        tokens = self.draft.tokens
        models = [self._answering] if self._answering is not None else [self._work.model]
        hold = self.hold
        held = None
        if hold is not None and hold.price.limited:
            held = hold.amount - price.cost_of(self._given_up, self.draft.opening)
        bounds = price.bounds_of(self._prompt, models)
        believed = price.believed(tokens, bounds, self.draft.opening, held)
        if believed.basis is Basis.CAPPED and tokens.basis is Basis.PROVIDER:
            log.warning(
                "a provider counted more tokens than can be",
                generation_id=str(self.generation.id),
                provider=self.draft.opening.provider,
                counted=(tokens.prompt, tokens.completion),
                believed=(believed.prompt, believed.completion),
            )
        elif believed.basis is Basis.CAPPED:
            believed = replace(believed, basis=tokens.basis)
        if not self._given_up.total:
            return believed
        return believed.plus(self._given_up, Basis.CRASH)

    @property
    def _is_owed(self) -> bool:
        """Whether a provider was asked, now or in a try that was given up."""
        return self._reached or self._given_up.total > 0

    def _is_put_back(self, ending: Ending) -> bool:
        if self._again is None or ending.error is None:
            return False
        if self.is_drained:
            return True
        return not self.draft.tokens.completion and self._again(ending.error)

    def _closing(self, ending: Ending, tail: bytes) -> Closing:
        return closing(
            self.draft.opening,
            ending,
            tail,
            ended_at=self._runner.clock(),
            latency_ms=int((time.perf_counter() - self._began) * 1000),
            reached=self._is_owed,
            warning=self.generation.warning,
        )

    def _kept(self, closed: Closing) -> Exchange | None:
        return exchange(self.draft.opening, closed, self.generation.text)
