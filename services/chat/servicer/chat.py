"""Messages in, one command, messages out."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TypeVar
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.chat.commands.chats import Chats
from services.chat.commands.replies import Replies
from services.chat.commands.texts import AUTO, Texts
from services.chat.domain.conversation import Ask, Fields, Turn
from services.chat.domain.generation import Delta, Ending, Generation, Last, OutOfTime, Silence
from services.chat.domain.history import left_out_in
from services.chat.domain.models import Catalog, Model
from services.chat.domain.records import Chat, Message
from services.chat.servicer.asked import ask_of, terms
from services.chat.servicer.events import (
    chat_id_of,
    check,
    tell_id,
    tell_warning,
    to_event,
    to_usage,
)
from services.chat.servicer.pings import Pings, as_comments

_NANO = 1_000_000_000

# Messages that are a chat, or a model.
C = TypeVar("C", pb.Chat, pb.CreateChatResponse, pb.GetChatResponse, pb.UpdateChatResponse)
M = TypeVar("M", pb.Model, pb.GetModelResponse)


class ChatServicer(pb_grpc.ChatServiceServicer):
    """Serves `khesht.chat.v1.ChatService`."""

    def __init__(
        self,
        replies: Replies,
        texts: Texts,
        chats: Chats,
        catalog: Catalog,
        pings: Pings,
        *,
        anonymous_byok: bool,
    ) -> None:
        """Takes the commands, the models there are, and when streams say that they are alive.

        Then whether a provider's key will do in place of a credential.
        """
        self._replies = replies
        self._pings = pings
        self._texts = texts
        self._anonymous_byok = anonymous_byok
        self._chats = chats
        self._catalog = catalog

    async def CreateReply(
        self, request: pb.CreateReplyRequest, context: Context
    ) -> pb.CreateReplyResponse:
        """Writes a whole reply. Raises what its provider failed of."""
        now = call.current()
        async with self._replies.reply(now.caller, terms(request), ask_of(request)) as generation:
            ending = await _whole(generation)
        return pb.CreateReplyResponse(
            id=str(generation.id),
            chat_id=chat_id_of(generation),
            message=generation.text,
            model=ending.model,
            usage=to_usage(ending.tokens),
            finish_reason=ending.finish_reason,
            generation_id=str(generation.id),
            warning=generation.warning or None,
            messages_left_out=left_out_in(generation.warning) or None,
        )

    async def StreamReply(
        self, request: pb.StreamReplyRequest, context: Context
    ) -> AsyncIterator[pb.StreamReplyResponse]:
        """Streams a reply. What fails before the first event is raised alone."""
        now = call.current()
        async with self._replies.reply(now.caller, terms(request), ask_of(request)) as generation:
            tell_id(generation)
            as_comments()
            begun = False
            async with aclosing(self._pings.follow(generation)) as events:
                async for event in events:
                    if isinstance(event, Last | OutOfTime) and not begun:
                        check(event)
                    if not begun:
                        tell_warning(generation)
                    begun = True
                    yield to_event(pb.StreamReplyResponse, generation, event)
                    if isinstance(event, Last | OutOfTime):
                        check(event)

    async def StreamText(
        self, request: pb.StreamTextRequest, context: Context
    ) -> AsyncIterator[pb.StreamTextResponse]:
        """Streams the bare text of a reply; a failure on the way is its last line."""
        now = call.current()
        if now.caller.is_anonymous and not (request.api_key and self._anonymous_byok):
            raise errors.Unauthenticated(
                "MISSING_CREDENTIALS", "send Authorization: Bearer <access token or API key>"
            )
        begun = False
        async with self._replies.reply(
            now.caller, terms(request), _text_ask(request)
        ) as generation:
            tell_id(generation)
            async with aclosing(self._pings.follow(generation)) as events:
                async for event in events:
                    if not begun:
                        tell_warning(generation)
                    match event:
                        case Delta(_, text, _):
                            begun = True
                            yield _plain(text)
                        case Silence():  # Plain text has no comments.
                            begun = True
                            yield _plain("")
                        case Last() | OutOfTime():
                            try:
                                check(event)
                            except errors.MeshError as error:
                                if begun:
                                    yield _plain(f"\n[{error.reason}: {error}]")
                                raise

    async def Summarize(
        self, request: pb.SummarizeRequest, context: Context
    ) -> pb.SummarizeResponse:
        """Sums up a text."""
        now = call.current()
        async with self._texts.summary(
            now.caller,
            terms(request),
            request.text,
            style=request.style or "concise",
            words=request.max_length if request.HasField("max_length") else None,
            model=request.model,
        ) as generation:
            ending = await _whole(generation)
        return pb.SummarizeResponse(
            summary=generation.text,
            model=ending.model,
            usage=to_usage(ending.tokens),
            generation_id=str(generation.id),
            warning=generation.warning or None,
        )

    async def Translate(
        self, request: pb.TranslateRequest, context: Context
    ) -> pb.TranslateResponse:
        """Translates a text."""
        now = call.current()
        source = request.source_language or AUTO
        async with self._texts.translation(
            now.caller,
            terms(request),
            request.text,
            source=source,
            target=request.target_language,
            model=request.model,
        ) as generation:
            ending = await _whole(generation)
        return pb.TranslateResponse(
            translation=generation.text,
            source_language=source,
            target_language=request.target_language,
            model=ending.model,
            usage=to_usage(ending.tokens),
            generation_id=str(generation.id),
            warning=generation.warning or None,
        )

    async def CreateChat(
        self, request: pb.CreateChatRequest, context: Context
    ) -> pb.CreateChatResponse:
        """Creates a chat for the caller."""
        return _chat(pb.CreateChatResponse, await self._chats.create(_owner(), request.title))

    async def GetChat(self, request: pb.GetChatRequest, context: Context) -> pb.GetChatResponse:
        """Gets one of the caller's chats."""
        chat = await self._chats.get(_owner(), UUID(request.chat_id))
        return _chat(pb.GetChatResponse, chat)

    async def ListChats(
        self, request: pb.ListChatsRequest, context: Context
    ) -> pb.ListChatsResponse:
        """Lists the caller's chats."""
        page, token = await self._chats.page(_owner(), request.page_size, request.page_token)
        return pb.ListChatsResponse(
            chats=[_chat(pb.Chat, chat) for chat in page], next_page_token=token
        )

    async def UpdateChat(
        self, request: pb.UpdateChatRequest, context: Context
    ) -> pb.UpdateChatResponse:
        """Renames one of the caller's chats."""
        chat = await self._chats.rename(_owner(), UUID(request.chat_id), request.title)
        return _chat(pb.UpdateChatResponse, chat)

    async def DeleteChat(
        self, request: pb.DeleteChatRequest, context: Context
    ) -> pb.DeleteChatResponse:
        """Deletes one of the caller's chats."""
        await self._chats.delete(_owner(), UUID(request.chat_id))
        return pb.DeleteChatResponse()

    async def ListMessages(
        self, request: pb.ListMessagesRequest, context: Context
    ) -> pb.ListMessagesResponse:
        """Lists the messages of one of the caller's chats."""
        page, token = await self._chats.messages(
            _owner(), UUID(request.chat_id), request.page_size, request.page_token
        )
        return pb.ListMessagesResponse(messages=map(_message, page), next_page_token=token)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Lists the models that the caller can call, by each of their names."""
        models = self._catalog.available(call.current().caller.allowed_models)
        return pb.ListModelsResponse(
            object="list", data=[each for model in models for each in _by_each_name(model)]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Gets a model that the caller can call, by any of its names."""
        model = self._catalog.find(request.model_id)
        if model not in self._catalog.available(call.current().caller.allowed_models):
            raise errors.NotFound(
                "MODEL_NOT_FOUND",
                f"no model {request.model_id} for this key; GET /v1/models lists them",
                metadata={"model": request.model_id},
            )
        return _model(pb.GetModelResponse, model)


async def _whole(generation: Generation) -> Ending:
    """The ending of a reply that its caller waits for. Raises what it failed of."""
    tell_id(generation)
    ending = await generation.ended()
    tell_warning(generation)
    ending.check()
    return ending


def _text_ask(request: pb.StreamTextRequest) -> Ask:
    speakers = {"user": "user", "ai": "assistant"}
    earlier = tuple(Turn(speakers[turn.role], turn.content) for turn in request.chat_history)
    return Ask(
        message=request.user_message,
        turns=earlier,
        system_prompt=request.developer_message,
        chat_id=None,
        model=request.model,
        max_tokens=None,
        temperature=None,
        store=False,
        key=request.api_key if request.HasField("api_key") else None,
        truncates=request.truncation != "off",
        fields=Fields("user_message", "chat_history", "developer_message"),
    )


def _plain(text: str) -> pb.StreamTextResponse:
    body = HttpBody(content_type="text/plain; charset=utf-8", data=text.encode())
    return pb.StreamTextResponse(body=body)


def _owner() -> UUID:
    return call.current().caller.user_id


def _chat(message: type[C], chat: Chat) -> C:
    return message(
        id=str(chat.id),
        title=chat.title,
        created_at=timestamp(chat.created_at),
        updated_at=timestamp(chat.updated_at),
    )


def _message(message: Message) -> pb.Message:
    return pb.Message(
        id=str(message.id),
        chat_id=str(message.chat_id),
        role=message.role,
        content=message.content,
        created_at=timestamp(message.created_at),
        finish_reason=message.finish_reason,
    )


def _by_each_name(model: Model) -> Iterator[pb.Model]:
    """A model, and what stands for it: programs offer their users the ids that they find."""
    yield _model(pb.Model, model)
    for alias in model.aliases:
        named = _model(pb.Model, model)
        named.id = alias
        yield named


def _model(message: type[M], model: Model) -> M:
    return message(
        id=model.id,
        object="model",
        owned_by=model.provider,
        root=model.id,
        aliases=model.aliases,
        max_output_tokens=model.max_output_tokens,
        context_window=model.context_window,
        prompt_usd_per_million_tokens=model.prompt_price / _NANO,
        completion_usd_per_million_tokens=model.completion_price / _NANO,
    )
