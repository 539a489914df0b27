"""One provider behind its breaker, its limit on calls at once, and its retries."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import structlog

from mesh import errors
from services.chat.domain.provider import (
    Account,
    Part,
    Prompt,
    Provider,
    QuotaSpent,
    Relay,
    Report,
    Unreachable,
)
from services.chat.providers.breaker import Breaker, Caller
from services.chat.providers.concurrency import WAIT_S, ConcurrencyLimit
from services.chat.providers.learning import Learnt, Lesson
from services.chat.providers.retry import Retry

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("providers")

Answer = AsyncGenerator[Part | Report]

# What a provider in an outage does. Who limits us, or refuses a key, is well.
_OUTAGE = frozenset({"PROVIDER_UNAVAILABLE", "PROVIDER_TIMEOUT", "PROVIDER_BROKE_OFF"})


class Begun(NamedTuple):
    """A call that is answered: what was asked, the first part, and where the rest comes from."""

    prompt: Prompt | Relay
    first: Part | Report
    rest: Answer


class Endpoint:
    """One provider, asked no more than is good for it and for those who wait."""

    def __init__(self, account: Account, provider: Provider) -> None:
        """Asks `provider` within the timeouts and bounds of `account`."""
        self.usable = account.usable
        self.takes_keys = account.needs_key
        self._name = account.name
        self._provider = provider
        self._timeouts = account.timeouts
        self._limit = ConcurrencyLimit(account.bounds.concurrency)
        self._retry = Retry(account.bounds.retries)
        self._learnt = Learnt(account.name)
        self._breaker = Breaker(account.bounds.breaker_failures, account.bounds.breaker_pause)

    @property
    def is_open(self) -> bool:
        """Whether it is left alone by all who ask, for having failed."""
        return self._breaker.is_open

    @asynccontextmanager
    async def admitted(self, caller: Caller) -> AsyncIterator[None]:
        """Room for one call of `caller`. Raises Unreachable when it is left alone, or stays full."""
        if wait := self._breaker.wait(caller):
            text = f"{self._name} failed several times and is not asked for now"
            raise Unreachable(
                "PROVIDER_UNAVAILABLE", text, metadata=self._named(), retry_after=wait
            )
        async with AsyncExitStack() as entered:
            entered.enter_context(self._breaker.entered(caller))
            try:
                await entered.enter_async_context(self._limit.entered(caller))
            except TimeoutError:
                raise Unreachable(
                    "PROVIDER_BUSY",
                    f"{self._name} has as many calls as it may have; try again",
                    metadata=self._named(),
                    retry_after=WAIT_S,
                ) from None
            yield

    async def begin(self, prompt: Prompt | Relay, by: float, caller: Caller) -> Begun:
        """What was asked, and the answer from its first part, in which nothing may be written yet.

        It is there `by` then, of the event loop's clock, or DeadlineExceeded is raised.
        Asks again, after a pause, while nothing was answered that may have been billed, and
        without what its model turns out not to take, or to have room for.
        Raises what the last try raised.
        """
        self._retry.earn()
        lesson = Lesson(self._learnt, self._learnt.applied(prompt))
        while True:
            try:
                first, rest = await self._repeat(lesson.prompt, by, caller)
            except errors.MeshError as error:
                if not lesson.after(error):
                    raise
            else:
                lesson.end()
                return Begun(lesson.prompt, first, rest)

    async def _repeat(
        self, prompt: Prompt | Relay, by: float, caller: Caller
    ) -> tuple[Part | Report, Answer]:
        for tried in range(self._retry.retries + 1):
            try:
                return await self._try(prompt, by, caller)
            except errors.MeshError as error:
                is_open = self._breaker.is_open_for(caller)
                pause = None if is_open else self._retry.pause(error, tried)
                if pause is None or asyncio.get_running_loop().time() + pause >= by:
                    raise
            self._retry.spend()
            await asyncio.sleep(pause)
        raise AssertionError("the last try is not followed by a pause")

    async def _try(
        self, prompt: Prompt | Relay, by: float, caller: Caller
    ) -> tuple[Part | Report, Answer]:
        timeouts = self._timeouts.of(prompt.timeouts)
        within = by - asyncio.get_running_loop().time()
        # One that is not streamed says nothing before it is whole.
        within = min(within, timeouts.total if prompt.whole else timeouts.first_byte)
        answer = self._provider.stream(prompt)
        try:
            async with asyncio.timeout(within):
                first = await anext(answer)
        except TimeoutError:
            late = errors.DeadlineExceeded(
                "PROVIDER_TIMEOUT",
                f"{self._name} answered nothing for {within:.3g} seconds",
                metadata=self._named(),
            )
            self._count(late, caller)
            raise late from None
        except errors.MeshError as error:
            self._count(error, caller)
            raise
        return first, answer

    def answers(self) -> None:
        """Notes that it answers: something is written."""
        self._breaker.succeeded()

    def failed(self, error: errors.MeshError, caller: Caller) -> None:
        """Notes that it failed after it had begun, before anything was written."""
        self._count(error, caller)

    def _count(self, error: errors.MeshError, caller: Caller) -> None:
        if is_of_the_request(error):
            self._breaker.succeeded()
        elif error.reason in _OUTAGE:
            was_open, was_open_for = self._breaker.is_open, self._breaker.is_open_for(caller)
            self._breaker.failed(caller)
            if self._breaker.is_open and not was_open:
                log.warning("a provider is left alone", provider=self._name, after=error.reason)
            elif self._breaker.is_open_for(caller) and not was_open_for:
                text = "a provider is left alone by an account"
                log.warning(text, provider=self._name, after=error.reason, user_id=str(caller))

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


def is_of_the_request(error: errors.MeshError) -> bool:
    """Whether the request is to blame, so that another try, or another provider, is no help."""
    return not isinstance(error, errors.Unavailable | errors.DeadlineExceeded | QuotaSpent)
