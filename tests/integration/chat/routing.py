"""A router of a test's own, with real connections to scripted providers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from services.chat.domain import completion
from services.chat.domain.conversation import Turn
from services.chat.domain.models import Catalog, Model
from services.chat.domain.provider import (
    Account,
    Answering,
    Bounds,
    Part,
    Prompt,
    Relay,
    Report,
    Timeouts,
)
from services.chat.providers.router import Router
from tests.fake_openai import FakeOpenAI

HURRIED = Timeouts(connect=0.5, first_byte=0.5, idle=0.5, total=5)
# For all tests that are not about time: a machine under load may be late.
UNHURRIED = Timeouts()
ONCE = Bounds(retries=0)
PROMPT = Prompt("asked", (Turn("user", "Hello"),), 100, None)
Event = Answering | Part | Report


def account(
    name: str,
    where: FakeOpenAI | str,
    bounds: Bounds = ONCE,
    timeouts: Timeouts = UNHURRIED,
    key: str = "sk-ours",
    *,
    needs_key: bool = True,
) -> Account:
    url = where if isinstance(where, str) else where.url
    return Account(
        name, url, key, needs_key=needs_key, private=True, bounds=bounds, timeouts=timeouts
    )


def model(name: str, *fallback: str, provider: str = "", most: int = 1_000) -> Model:
    """A model at the provider of its own name, if no other is named."""
    return Model(name, provider or name, (), most, 0, 0, fallback=fallback)


@asynccontextmanager
async def routing(*accounts: Account, models: tuple[Model, ...] = ()) -> AsyncIterator[Router]:
    """A router to `accounts`; each has a model of its name unless `models` are given."""
    known = models or tuple(model(each.name) for each in accounts)
    usable = frozenset(each.name for each in accounts if each.usable)
    default = next(each.id for each in known if each.provider in usable)
    catalog = Catalog(known, [default], usable)
    async with asyncio.timeout(30), Router.opened(accounts, catalog) as router:
        yield router


async def asked(
    router: Router,
    asked_of: Model | str,
    prompt: Prompt | Relay = PROMPT,
    caller: UUID | None = None,
) -> list[Event]:
    """Everything that came. Raises what the router raises."""
    of = asked_of if isinstance(asked_of, Model) else model(asked_of)
    async with aclosing(router.stream(of, prompt, caller)) as events:
        return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Part))


def who(events: list[Event]) -> list[str]:
    """The models that said that they answer."""
    return [event.model.id for event in events if isinstance(event, Answering)]


def relay(*, stream: bool, key: str | None = None) -> Relay:
    body = b'{"model": "m", "messages": [{}], "stream": %s}' % (b"true" if stream else b"false")
    return Relay(UUID(int=1), "m", completion.read(body), datetime.now(UTC), key)
