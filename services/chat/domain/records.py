"""What chat keeps: chats, messages, and what a generation used."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID


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
class Consumption:
    """What one generation used. Prices are nano-USD for a million tokens."""

    generation_id: UUID
    request_id: str
    user_id: UUID
    key_id: UUID | None
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    prompt_price: int
    completion_price: int
    status: str
    basis: str
    latency_ms: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its reply, to be kept in a chat of `owner_id`.

    The chat is made when it is `new`, and gets the reply's time as its own.
    """

    owner_id: UUID
    chat: Chat
    new: bool
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """All that is written when a generation has ended."""

    generation_id: UUID
    consumption: Consumption | None
    exchange: Exchange | None
