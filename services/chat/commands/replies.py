"""Replies: from what a caller asks to a running generation."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.identity.principal import Principal
from services.chat.commands.budget import Spender
from services.chat.commands.chats import Room
from services.chat.commands.credentials import Credentials
from services.chat.commands.generations import Generations
from services.chat.commands.runner import Run, Runner, Work
from services.chat.domain import prompt_size
from services.chat.domain.completion import Completion
from services.chat.domain.conversation import Ask, Limits, Terms, Turn, title_of
from services.chat.domain.generation import CLIENT_LEFT, Generation, Status
from services.chat.domain.models import Catalog, Model
from services.chat.domain.prompt_size import PromptSize
from services.chat.domain.provider import OwnKey, Prompt, Relay
from services.chat.domain.records import Chat, Message, Question
from services.chat.domain.rows import Opening, Row
from services.chat.store import chats, generations

# A twin's request may end between being met and being looked at.
_TRIES = 3


@dataclass(slots=True)
class Replies:
    """Starts generations."""

    catalog: Catalog
    limits: Limits
    runner: Runner
    generations: Generations
    # How the keys of each provider begin that callers may bring their own of.
    key_prefixes: Mapping[str, str]
    credentials: Credentials
    room: Room
    new_id: Callable[[], UUID] = uuid.uuid4

    @asynccontextmanager
    async def reply(self, caller: Principal, terms: Terms, ask: Ask) -> AsyncIterator[Generation]:
        """A running generation that answers `ask`; leaving early cancels it, unless it lasts.

        A repeated request is given the generation of the first, running or ended.
        Raises InvalidRequest, NotFound for the model or the chat, FailedPrecondition
        for a model that is not configured or a chat too many, AlreadyExists for a repeat that asks
        something else, and ResourceExhausted when there is no money for it.
        """
        work = await self.prepare(caller, terms, ask)
        async with self._running(work, terms) as generation:
            yield generation

    @asynccontextmanager
    async def relay(
        self, caller: Principal, terms: Terms, completion: Completion, key: OwnKey
    ) -> AsyncIterator[Generation]:
        """A running generation that answers a request in OpenAI's format. As `reply`."""
        began = self.runner.clock()
        model, key = await self._model(caller, completion.model, key)
        generation_id = self.new_id()
        size = prompt_size.of_request(completion.fields, model.image_tokens)
        relay = Relay(generation_id, model.id, completion, began, size, key, caller.allowed_models)
        opening = _opening(generation_id, caller, terms, model, size, began)
        work = Work(opening, model, relay, spender(caller))
        async with self._running(work, terms) as generation:
            yield generation

    async def prepare(self, caller: Principal, terms: Terms, ask: Ask) -> Work:
        """What is to be run for `ask`. Raises as `reply` does."""
        began = self.runner.clock()
        model, key = await self._model(caller, ask.model, ask.key)
        asked = self._asked(ask)
        chat, earlier, left_out = await self._chat(caller.user_id, ask, asked, began)
        system = self.limits.cleaned(ask.system_prompt, ask.fields.system_prompt)
        turns = (*((Turn("system", system),) if system else ()), *earlier, *asked)
        most = min(ask.max_tokens or model.max_output_tokens, model.max_output_tokens)
        prompt = Prompt(
            model.id,
            turns,
            most,
            ask.temperature,
            key,
            caller.allowed_models,
            truncates=ask.truncates,
            left_out=left_out,
        )
        if model.context_window is not None:  # Money is held for what is sent.
            prompt = replace(prompt.fitting(model.context_window), max_tokens=most)
        opening = _opening(
            self.new_id(),
            caller,
            terms,
            model,
            prompt.size,
            began,
            chat_id=chat.id if chat else None,
            question=self._question(chat, ask, asked) if chat else None,
        )
        return Work(opening, model, prompt, spender(caller))

    async def twin(self, opening: Opening) -> Row | None:
        """What the same request of the same caller has become before, if it still counts.

        Raises AlreadyExists when it asked something else.
        """
        if opening.dedup_key is None:
            raise RuntimeError(f"generation {opening.id} is there already")
        key = opening.dedup_key
        row = await self.generations.database.run_one(
            lambda c: generations.of_request(c, opening.caller_id, key)
        )
        if row is not None and row.dedup_body != opening.dedup_body:
            raise errors.AlreadyExists(
                "REQUEST_ID_REUSED",
                "the request_id or Idempotency-Key was used for another request",
            )
        return row

    @asynccontextmanager
    async def _running(self, work: Work, terms: Terms) -> AsyncIterator[Generation]:
        for _ in range(_TRIES):
            run, opened, broke = self.runner.start(work), False, None
            async with _waited_for(run, terms):
                try:
                    opened = await asyncio.shield(run.opened)
                except errors.ResourceExhausted as error:
                    if work.opening.dedup_key is None:
                        raise
                    broke = error  # But a repeat needs no money.
                if opened:
                    yield run.generation
                    return
            twin = await self.twin(work.opening)
            if twin is None and broke is not None:
                raise broke
            if twin is not None:
                first = self.runner.running.get(twin.id)
                async with _waited_for(first, terms), self.generations.following(twin) as follows:
                    yield follows
                return
        raise errors.Unavailable("UNAVAILABLE", "the same request ends just now", retry_after=1)

    async def _model(self, caller: Principal, name: str, key: OwnKey) -> tuple[Model, OwnKey]:
        """The model that is meant, and the caller's key of its provider: sent with the call, or stored."""
        known = self.catalog.called(name)
        stored = known is not None and known.provider in caller.credential_providers
        model = self.catalog.find(name, own_key=key is not None or stored)
        if key is None and stored:
            return model, await self.credentials.of(caller.user_id, model.provider)
        prefix = self.key_prefixes.get(model.provider, "")
        if key is not None and not key.startswith(prefix):
            raise errors.invalid("api_key", f"API key must start with {prefix}")
        return model, key

    def _asked(self, ask: Ask) -> tuple[Turn, ...]:
        if ask.turns and ask.chat_id:
            raise errors.invalid("chat_id", "goes with message, not with messages")
        turns = self.limits.cleaned_turns(ask.turns, ask.fields.turns)
        if turns and not ask.message:
            return turns
        message = self.limits.cleaned(ask.message, ask.fields.message)
        if not message.strip():
            raise errors.invalid(ask.fields.message, "must not be empty")
        return (*turns, Turn("user", message))

    async def _chat(
        self, owner_id: UUID, ask: Ask, asked: tuple[Turn, ...], began: datetime
    ) -> tuple[Chat | None, tuple[Turn, ...], int]:
        """The chat that the turn belongs to, if any, and what was said in it before.

        Then how many of its turns are beyond what a model is given.
        """
        chat_id = ask.chat_id
        if chat_id is None:
            if not ask.stored:
                return None, (), 0
            await self.room.take(owner_id)
            title = title_of(asked[-1].content)
            return Chat(self.new_id(), title, began, began), (), 0
        limit = self.limits.history - 1

        async def read(connection: AsyncConnection) -> tuple[Chat, list[Message], int]:
            chat = await chats.get_chat(connection, owner_id, chat_id)
            if chat is None:
                raise errors.NotFound("CHAT_NOT_FOUND", "no such chat")
            last = await chats.history(connection, chat_id, limit=limit + 1)
            if len(last) <= limit:
                return chat, last, 0
            all_of_it = await chats.count_messages(connection, chat_id)
            last = _from_a_question(last[1:])
            return chat, last, all_of_it - len(last)

        chat, messages, left_out = await self.generations.database.run(read)
        earlier = tuple(Turn(message.role, message.content) for message in messages)
        return chat if ask.stored else None, earlier, left_out

    def _question(self, chat: Chat, ask: Ask, asked: tuple[Turn, ...]) -> str:
        said = tuple((self.new_id(), turn.role, turn.content) for turn in asked)
        title = chat.title if ask.chat_id is None else None
        return msgspec.json.encode(Question(title, said)).decode()


def _from_a_question(messages: list[Message]) -> list[Message]:
    """`messages` without replies at their beginning, whose questions are not among them."""
    first = next(
        (at for at, each in enumerate(messages) if each.role != "assistant"), len(messages)
    )
    return messages[first:]


@asynccontextmanager
async def _waited_for(run: Run | None, terms: Terms) -> AsyncIterator[None]:
    """Counts who waits for `run`: it ends when the last of them leaves, unless it lasts."""
    if run is None:
        yield
        return
    run.waiting += 1
    run.lasts |= terms.lasts
    try:
        yield
    finally:
        run.waiting -= 1
        if not run.waiting and not run.lasts:
            run.stop(CLIENT_LEFT)


def spender(caller: Principal) -> Spender:
    """Who asks, and pays."""
    return Spender(
        caller.user_id,
        caller.key_id,
        caller.budget,
        caller.token_limit,
        caller.secret_id,
        caller.session_id,
    )


def _opening(
    generation_id: UUID,
    caller: Principal,
    terms: Terms,
    model: Model,
    size: PromptSize,
    began: datetime,
    *,
    chat_id: UUID | None = None,
    question: str | None = None,
) -> Opening:
    # Strangers share one account: none of them may be given what another asked for.
    dedup_key = None if caller.is_anonymous else terms.dedup_key
    return Opening(
        id=generation_id,
        caller_id=caller.key_id or caller.user_id,
        user_id=caller.user_id,
        key_id=caller.key_id,
        request_id=terms.request_id,
        chat_id=chat_id,
        model=model.id,
        provider=model.provider,
        prompt_price=model.prompt_price,
        completion_price=model.completion_price,
        kind_prices=model.kind_prices.encode(),
        prompt_estimate=size.tokens,
        status=Status.PENDING,
        runner_id=None,
        created_at=began,
        question=question,
        dedup_key=dedup_key,
        dedup_body=terms.dedup_body if dedup_key else None,
    )
