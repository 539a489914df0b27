"""What chat keeps of conversations: chats, messages, and a question with its reply."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from services.chat.domain.generation import Origin


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat of one owner."""

    id: UUID
    title: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat. `finish_reason` is set on replies."""

    id: UUID
    chat_id: UUID
    role: str
    content: str
    created_at: datetime
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its reply, to be kept in a chat of `owner_id`.

    The chat is made when it is `new`, and gets the reply's time as its own.
    """

    owner_id: UUID
    chat: Chat
    new: bool
    messages: tuple[Message, ...]


class Question(msgspec.Struct, frozen=True):
    """What was said before a reply, to be kept with it: (id, role, content) of each.

    `title` is set when the chat is still to be made.
    """

    title: str | None
    said: tuple[tuple[UUID, str, str], ...]

    def answered(self, origin: Origin, reply: Message) -> Exchange:
        """The question and `reply`."""
        chat = Chat(reply.chat_id, self.title or "", origin.created_at, reply.created_at)
        said = (Message(i, chat.id, r, c, origin.created_at) for i, r, c in self.said)
        return Exchange(origin.user_id, chat, self.title is not None, (*said, reply))
