"""Replies: from what a caller asks to a running generation."""

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.db import Database
from mesh.identity.principal import Principal
from services.chat import store
from services.chat.commands.runner import Keep, Runner
from services.chat.domain.completion import Completion
from services.chat.domain.conversation import Ask, Limits, Turn, title_of
from services.chat.domain.generation import Generation, Origin
from services.chat.domain.models import Catalog, Model
from services.chat.domain.provider import OwnKey, Prompt, Relay
from services.chat.domain.records import Chat, Exchange, Message


def now() -> datetime:
    """The time that chat works by."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Replies:
    """Starts generations."""

    database: Database
    catalog: Catalog
    limits: Limits
    runner: Runner
    # How the keys of each provider begin that callers may bring their own of.
    key_prefixes: Mapping[str, str]
    clock: Callable[[], datetime] = now
    new_id: Callable[[], UUID] = uuid.uuid4

    @asynccontextmanager
    async def reply(
        self, caller: Principal, request_id: str, ask: Ask
    ) -> AsyncIterator[Generation]:
        """A running generation that answers `ask`; leaving early cancels it.

        Raises InvalidRequest, NotFound for the model or the chat, and
        FailedPrecondition for a model that is not configured.
        """
        generation = await self._start(caller, request_id, ask)
        try:
            yield generation
        finally:
            generation.cancel()

    @asynccontextmanager
    async def relay(
        self, caller: Principal, request_id: str, completion: Completion, key: OwnKey
    ) -> AsyncIterator[Generation]:
        """A running generation that answers a request in OpenAI's format; stored nowhere.

        Leaving early cancels it. Raises as `reply` does.
        """
        began = self.clock()
        model = self._model(completion.model, key)
        origin = Origin(caller.user_id, caller.key_id, request_id, began, None)
        generation = Generation(self.new_id(), model, origin)
        relay = Relay(generation.id, model.id, completion, began, key)
        self.runner.start(generation, relay, None)
        try:
            yield generation
        finally:
            generation.cancel()

    async def _start(self, caller: Principal, request_id: str, ask: Ask) -> Generation:
        began = self.clock()
        model = self._model(ask.model, ask.key)
        asked = self._asked(ask)
        chat, earlier = await self._chat(caller.user_id, ask, asked, began)
        system = self.limits.cleaned(ask.system_prompt, "system_prompt")
        turns = (*((Turn("system", system),) if system else ()), *earlier, *asked)
        most = min(ask.max_tokens or model.max_output_tokens, model.max_output_tokens)
        prompt = Prompt(model.id, turns, most, ask.temperature, ask.key)
        origin = Origin(caller.user_id, caller.key_id, request_id, began, chat.id if chat else None)
        generation = Generation(self.new_id(), model, origin)
        keep = self._keep(generation, chat, ask, asked) if chat else None
        self.runner.start(generation, prompt, keep)
        return generation

    def _model(self, name: str, key: OwnKey) -> Model:
        model = self.catalog.find(name, own_key=key is not None)
        prefix = self.key_prefixes.get(model.provider, "")
        if key is not None and not key.startswith(prefix):
            raise errors.invalid("api_key", f"API key must start with {prefix}")
        return model

    def _asked(self, ask: Ask) -> tuple[Turn, ...]:
        if ask.turns:
            if ask.chat_id:
                raise errors.invalid("chat_id", "goes with message, not with messages")
            return self.limits.cleaned_turns(ask.turns)
        message = self.limits.cleaned(ask.message, "message")
        if not message.strip():
            raise errors.invalid("message", "must not be empty")
        return (Turn("user", message),)

    async def _chat(
        self, owner_id: UUID, ask: Ask, asked: tuple[Turn, ...], began: datetime
    ) -> tuple[Chat | None, tuple[Turn, ...]]:
        """The chat that the turn belongs to, if any, and what was said in it before."""
        chat_id = ask.chat_id
        if chat_id is None:
            if not ask.stored:
                return None, ()
            title = title_of(asked[-1].content)
            return Chat(self.new_id(), title, began, began), ()
        limit = self.limits.history - 1

        async def read(connection: AsyncConnection) -> tuple[Chat, list[Message]]:
            chat = await store.get_chat(connection, owner_id, chat_id)
            if chat is None:
                raise errors.NotFound("CHAT_NOT_FOUND", "no such chat")
            return chat, await store.history(connection, chat_id, limit=limit)

        chat, messages = await self.database.run(read)
        earlier = tuple(Turn(message.role, message.content) for message in messages)
        return chat if ask.stored else None, earlier

    def _keep(self, generation: Generation, chat: Chat, ask: Ask, asked: tuple[Turn, ...]) -> Keep:
        owner_id, began = generation.origin.user_id, generation.origin.created_at
        said = tuple(
            Message(self.new_id(), chat.id, turn.role, turn.content, began) for turn in asked
        )

        def keep(text: str, finish_reason: str) -> Exchange:
            ended = self.clock()
            reply = Message(generation.id, chat.id, "assistant", text, ended, finish_reason)
            return Exchange(
                owner_id, replace(chat, updated_at=ended), ask.chat_id is None, (*said, reply)
            )

        return keep
