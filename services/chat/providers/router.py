"""The one way to ask a model: its provider, or those of the models that may stand in for it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import msgspec
import structlog

from mesh import errors
from mesh.time_limits import LONGEST_ANSWER_S
from services.chat.domain.models import Catalog, Model
from services.chat.domain.provider import (
    Account,
    Answering,
    Part,
    Prompt,
    QuotaSpent,
    Relay,
    Report,
    Unreached,
)
from services.chat.providers.codecs.openai import OpenAI
from services.chat.providers.echo import Echo
from services.chat.providers.endpoint import Endpoint, is_of_the_request
from services.chat.providers.transport import Transport

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("providers")

# All of a chain has the time of one answer.
_ANSWERED_WITHIN_S = LONGEST_ANSWER_S
# Of a relayed answer, before anything is written in it: what can still be taken back. It is room
# for roles and empty chunks; what is larger holds something that we don't read, such as sound.
_MAX_HELD_BYTES = 8 << 10
# What a part takes besides its bytes, about.
_PART_BYTES = 100


@dataclass(slots=True)
class _Held:
    """Parts of a relayed answer in which nothing is written yet."""

    parts: list[Part] = field(default_factory=list)
    _size: int = 0

    def has_room(self, part: Part) -> bool:
        return self._size + len(part.raw) <= _MAX_HELD_BYTES

    def add(self, part: Part) -> None:
        self.parts.append(part)
        self._size += len(part.raw) + _PART_BYTES


def _is_answer(part: Part) -> bool:
    """Whether its caller gets something of the answer by `part`: text, and thoughts where they pass."""
    return bool(part.text or (part.beside and part.raw))


def _cut_of(sent: Prompt | Relay) -> Prompt | None:
    """What was sent, where turns were left out of it."""
    return sent if isinstance(sent, Prompt) and sent.left_out else None


class Router:
    """Asks models."""

    def __init__(self, endpoints: Mapping[str, Endpoint], catalog: Catalog) -> None:
        """Takes every provider that a model of `catalog` can be at, by name."""
        self._endpoints = endpoints
        self._catalog = catalog

    @classmethod
    @asynccontextmanager
    async def opened(cls, accounts: Iterable[Account], catalog: Catalog) -> AsyncIterator[Self]:
        """A router to `accounts`, and to echo; their connections are closed at the end."""
        endpoints = {"echo": Endpoint(Account("echo", url="", key="built in"), Echo())}
        async with AsyncExitStack() as stack:
            for account in accounts:
                provider = await stack.enter_async_context(Transport.opened(account, OpenAI()))
                endpoints[account.name] = Endpoint(account, provider)
            yield cls(endpoints, catalog)

    @property
    def states(self) -> dict[str, str]:
        """How each provider does that can be called.

        `unavailable` is one that is left alone for having failed, `healthy` the one that
        is built in, `configured` any other: it is only asked when a model is.
        """
        return {
            name: "unavailable"
            if endpoint.is_open
            else "healthy"
            if name == "echo"
            else "configured"
            for name, endpoint in sorted(self._endpoints.items())
            if endpoint.usable
        }

    async def stream(
        self, model: Model, prompt: Prompt | Relay, caller: UUID | None = None
    ) -> AsyncGenerator[Answering | Part | Report]:
        """Who answers, then parts as they arrive, then one Report.

        A model that can't answer is replaced by the next of its `fallback`, until its caller
        has something of its answer: then nothing is asked again. Who answers may be said anew,
        after thoughts; what came before that does not count. `caller` is the account that asks:
        the failures of one keep none but itself from a provider. Raises the first QuotaSpent
        where there is one, since that says when to come again; the last error of those that got
        the prompt; Unreached when none did; and InvalidRequest for a caller's own key where none
        is needed: it would open a server of ours to whoever makes one up.
        """
        if prompt.key is not None and not self._endpoints[model.provider].takes_keys:
            raise errors.invalid("api_key", f"{model.provider} takes no keys")
        by = asyncio.get_running_loop().time() + _ANSWERED_WITHIN_S
        failed: list[errors.MeshError] = []
        chain = self._catalog.chain(model, own_key=prompt.key is not None, allowed=prompt.allowed)
        for candidate in chain:
            endpoint = self._endpoints[candidate.provider]
            begun = answering = said = False
            try:
                async with endpoint.admitted(caller):
                    sent, part, rest = await endpoint.begin(prompt.to(candidate), by, caller)
                    begun, held = True, _Held()
                    who = Answering(candidate, _cut_of(sent))
                    async with aclosing(rest):
                        while (
                            isinstance(part, Part) and not _is_answer(part) and held.has_room(part)
                        ):
                            if isinstance(prompt, Relay):
                                held.add(part)
                            elif part.beside or part.tokens:
                                if not said:
                                    yield who
                                said = True
                                yield part
                            part = await anext(rest)
                        answering = True
                        endpoint.answers()
                        if not said:
                            yield who
                        for each in held.parts:
                            yield each
                        yield part
                        async for part in rest:
                            yield part
                return
            except errors.MeshError as error:
                if begun and not answering:
                    endpoint.failed(error, caller)
                    # It is paid for, though nobody gets it.
                    counted = [part for part in held.parts if part.beside or part.tokens]
                    if counted:
                        yield who
                    for part in counted:
                        yield msgspec.structs.replace(part, raw=b"")
                # What a stand-in makes of the request says nothing about the model asked for.
                if answering or (is_of_the_request(error) and candidate == model):
                    raise
                if not is_of_the_request(error):
                    failed.append(error)
                log.info("a model does not answer", model=candidate.id, reason=error.reason)
            if asyncio.get_running_loop().time() >= by:
                break
        reached = [error for error in failed if not isinstance(error, Unreached)]
        limited = [error for error in failed if isinstance(error, QuotaSpent)]
        raise limited[0] if limited else (reached or failed)[-1]
