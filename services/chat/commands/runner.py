"""Runs generations: asks the provider, appends what comes, ends and settles, once."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from mesh import errors
from services.chat.commands.settle import Settler
from services.chat.domain.generation import Ending, Generation, Status, Tokens
from services.chat.domain.provider import Answering, Part, Prompt, Relay, Report, Unreached
from services.chat.domain.records import Consumption, Exchange, Settlement
from services.chat.providers.router import Router

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("generation")

# How long readers wait for an ending to be committed before they are told of it.
_SETTLED_WITHIN = 5.0
_FINISHED_WITHIN = 10.0
# About how many characters a token has where nobody counted (OpenAI's rule of thumb).
_CHARACTERS_PER_TOKEN = 4

# No reply has more; a provider that counts more does not count at all.
_MOST_TOKENS = 1 << 30

# What to keep in a chat, given the reply's text and why it ended.
Keep = Callable[[str, str], Exchange] | None


@dataclass(slots=True)
class Runner:
    """The generations that run in this process."""

    router: Router
    settler: Settler
    _running: dict[UUID, "_Run"] = field(default_factory=dict)

    def start(self, generation: Generation, prompt: Prompt | Relay, keep: Keep) -> None:
        """Runs `generation`, which ends whatever happens; `keep` says what stays of it."""
        run = _Run(generation, prompt, self.router, self.settler, keep)
        run.task = asyncio.create_task(run.run())
        self._running[generation.id] = run
        run.task.add_done_callback(lambda _: self._ended(generation.id))
        generation.cancel = run.stop

    def _ended(self, generation_id: UUID) -> None:
        run = self._running.pop(generation_id)
        if run.task is not None and run.task.cancelled():  # Before its first step.
            run.never()

    async def finish(self) -> None:
        """Ends what still runs and waits until it has settled, 10 seconds at most."""
        self.drain()
        tasks = {run.task for run in self._running.values() if run.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=_FINISHED_WITHIN)

    def drain(self) -> None:
        """Ends what still runs, because this process is being stopped."""
        for run in self._running.values():
            run.stop(errors.Unavailable("DRAINING", "the server is restarting", retry_after=1))


@dataclass(slots=True, eq=False)
class _Run:
    generation: Generation
    prompt: Prompt | Relay
    router: Router
    settler: Settler
    keep: Keep
    _began: float = field(default_factory=time.perf_counter)
    _pieces: int = 0
    _reached: bool = True
    _asking: bool = True
    _why: errors.MeshError | None = None
    task: "asyncio.Task[None] | None" = None

    def stop(self, why: errors.MeshError | None = None) -> None:
        """Ends it as cancelled, or as failed of `why`. Does nothing once it is ending."""
        if self._asking and self.task is not None:
            self._why = why
            self.task.cancel()

    def never(self) -> None:
        """Ends what was stopped before anything was asked."""
        self.generation.end(self._stopped())

    async def run(self) -> None:
        """Asks, then settles, then ends; only the asking can be interrupted."""
        ending = await self._outcome()
        settled = self.settler.settle(self._settlement(ending))
        done, _ = await asyncio.wait({settled}, timeout=_SETTLED_WITHIN)
        if not done:
            log.error("an ending waits to be stored", generation_id=str(self.generation.id))
        self.generation.end(ending)

    async def _outcome(self) -> Ending:
        try:
            report = await self._ask()
        except asyncio.CancelledError:
            return self._stopped()
        except errors.MeshError as error:
            self._reached = not isinstance(error, Unreached)
            return self._broken(Status.FAILED, "error", error)
        except Exception as bug:
            log.error("generation", generation_id=str(self.generation.id), exc_info=bug)
            unknown = errors.MeshError("INTERNAL", f"internal error {self.generation.id.hex}")
            return self._broken(Status.FAILED, "error", unknown)
        finally:
            self._asking = False
        return Ending(
            Status.COMPLETED,
            self.generation.text,
            report.model,
            report.finish_reason,
            self._tokens(report.tokens),
        )

    async def _ask(self) -> Report:
        async with aclosing(self.router.stream(self.generation.model, self.prompt)) as parts:
            async for part in parts:
                match part:
                    case Part(text, pieces, raw):
                        self._pieces += pieces
                        self.generation.append(text, raw)
                    case Answering(model):
                        self.generation.model = model
                    case Report():
                        return part
        raise AssertionError("a provider's stream ends with its report")

    def _stopped(self) -> Ending:
        if self._why is None:
            return self._broken(Status.CANCELLED, "cancelled", None)
        return self._broken(Status.FAILED, "error", self._why)

    def _broken(self, status: Status, reason: str, error: errors.MeshError | None) -> Ending:
        model = self.generation.model.id
        return Ending(status, self.generation.text, model, reason, self._tokens(None), error)

    def _tokens(self, counted: tuple[int, int] | None) -> Tokens:
        if counted is not None and all(0 <= tokens <= _MOST_TOKENS for tokens in counted):
            return Tokens(*counted, estimated=False)
        if not self._pieces:  # Nothing was written, so nothing is charged.
            return Tokens(0, 0, estimated=True)
        return Tokens(-(-self.prompt.size // _CHARACTERS_PER_TOKEN), self._pieces, estimated=True)

    def _settlement(self, ending: Ending) -> Settlement:
        """A question without any reply is not kept: its caller will ask again."""
        exchange = None
        if self.keep is not None and (ending.text or ending.status is Status.COMPLETED):
            exchange = self.keep(ending.text, ending.finish_reason)
        used = self._consumption(ending) if self._reached else None
        return Settlement(self.generation.id, used, exchange)

    def _consumption(self, ending: Ending) -> Consumption:
        origin, model = self.generation.origin, self.generation.model
        return Consumption(
            generation_id=self.generation.id,
            request_id=origin.request_id,
            user_id=origin.user_id,
            key_id=origin.key_id,
            model=model.id,
            provider=model.provider,
            prompt_tokens=ending.tokens.prompt,
            completion_tokens=ending.tokens.completion,
            prompt_price=model.prompt_price,
            completion_price=model.completion_price,
            status=str(ending.status),
            basis="estimated" if ending.tokens.estimated else "provider",
            latency_ms=int((time.perf_counter() - self._began) * 1000),
            created_at=origin.created_at,
        )
