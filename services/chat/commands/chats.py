"""Chats and their messages, as their owner sees and changes them."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors, pages
from mesh.db import Database
from services.chat.commands.runner import now
from services.chat.domain.records import Chat, Message
from services.chat.store import chats as store
from services.chat.store import generations

# Characters, each of up to 4 bytes: a message of gRPC has 4 MiB at most by default.
_LONGEST_PAGE = 800_000
_ERASED_AT_ONCE = 200
_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class Room:
    """Room for more chats of each account, which may have `most`.

    It is counted again when a quarter of what was left is taken, or at each of the last
    few, so an account that makes many at once may come to have a few more.
    """

    database: Database
    most: int
    _left: dict[UUID, int] = field(default_factory=dict)

    async def take(self, owner_id: UUID) -> None:
        """Takes room for one chat. Raises FailedPrecondition when there is none."""
        left = self._left.get(owner_id, 0)
        if not left:
            count = await self.database.run_one(
                lambda c: store.count_chats(c, owner_id, most=self.most)
            )
            if count >= self.most:
                raise errors.FailedPrecondition(
                    "TOO_MANY_CHATS",
                    f"an account may have {self.most} chats; delete some, or send store: false",
                    metadata={"limit": str(self.most)},
                )
            left = max((self.most - count) // 4, 1)
        if len(self._left) >= _MOST_REMEMBERED:
            self._left.clear()
        self._left[owner_id] = left - 1


@dataclass(slots=True)
class Chats:
    """The chats of one owner at a time."""

    database: Database
    tokens: pages.PageTokens
    room: Room
    clock: Callable[[], datetime] = now
    new_id: Callable[[], UUID] = uuid.uuid4

    async def create(self, owner_id: UUID, title: str) -> Chat:
        """The new chat. Raises FailedPrecondition when there are too many."""
        await self.room.take(owner_id)
        began = self.clock()
        chat = Chat(self.new_id(), title or "New chat", began, began)
        await self.database.run(lambda c: store.create_chat(c, owner_id, chat))
        return chat

    async def get(self, owner_id: UUID, chat_id: UUID) -> Chat:
        """The chat. Raises NotFound."""
        return _found(await self.database.run(lambda c: store.get_chat(c, owner_id, chat_id)))

    async def page(self, owner_id: UUID, page_size: int, page_token: str) -> tuple[list[Chat], str]:
        """A page of chats, and the token of the next or "". Raises InvalidRequest."""
        name, size = f"chats/{owner_id}", pages.size(page_size)
        place = self.tokens.read(name, page_token)
        after = (datetime.fromisoformat(place[0]), UUID(place[1])) if place else None
        found = await self.database.run(
            lambda c: store.list_chats(c, owner_id, after=after, limit=size + 1)
        )
        page = found[:size]
        if len(found) == len(page):
            return page, ""
        return page, self.tokens.write(name, [page[-1].updated_at.isoformat(), str(page[-1].id)])

    async def rename(self, owner_id: UUID, chat_id: UUID, title: str) -> Chat:
        """The chat as it is now. Raises NotFound."""
        changed = self.clock()
        return _found(
            await self.database.run(
                lambda c: store.update_chat(c, owner_id, chat_id, title=title, now=changed)
            )
        )

    async def delete(self, owner_id: UUID, chat_id: UUID) -> None:
        """Deletes the chat, its messages, and the texts of its generations. Raises NotFound."""
        ended = await self.database.run_one(
            lambda c: generations.ended_of_chat(c, owner_id, chat_id)
        )
        # Of a long chat these take longer than a statement may, or than endings may wait for it.
        for start in range(0, len(ended), _ERASED_AT_ONCE):
            await self._erase(ended[start : start + _ERASED_AT_ONCE])

        async def delete(connection: AsyncConnection) -> bool:
            there = await store.delete_chat(connection, owner_id, chat_id)
            # One that still runs finds no chat when it ends, and erases itself.
            late = await generations.ended_of_chat(connection, owner_id, chat_id)
            await generations.erase(connection, list(set(late) - set(ended)))
            return there

        if not await self.database.run(delete):
            raise _missing()

    async def _erase(self, generation_ids: Sequence[UUID]) -> None:
        await self.database.run(lambda c: generations.erase(c, generation_ids))

    async def messages(
        self, owner_id: UUID, chat_id: UUID, page_size: int, page_token: str
    ) -> tuple[list[Message], str]:
        """A page of messages, and the token of the next or "". Raises NotFound."""
        name, size = f"messages/{chat_id}", pages.size(page_size)
        place = self.tokens.read(name, page_token)
        after = int(place[0]) if place else 0

        async def read(connection: AsyncConnection) -> list[tuple[int, Message]]:
            _found(await store.get_chat(connection, owner_id, chat_id))
            return await store.list_messages(connection, chat_id, after=after, limit=size + 1)

        found = await self.database.run(read)
        page = found[: _fitting([message for _, message in found[:size]])]
        more = len(found) > len(page)
        token = self.tokens.write(name, [page[-1][0]]) if more else ""
        return [message for _, message in page], token


def _fitting(messages: Sequence[Message]) -> int:
    """How many of `messages` make a page that clients of gRPC take; at least one, if any."""
    length = 0
    for count, message in enumerate(messages):
        length += len(message.content)
        if length > _LONGEST_PAGE and count:
            return count
    return len(messages)


def _found(chat: Chat | None) -> Chat:
    if chat is None:
        raise _missing()
    return chat


def _missing() -> errors.NotFound:
    return errors.NotFound("CHAT_NOT_FOUND", "no such chat")
