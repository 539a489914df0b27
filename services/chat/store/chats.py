"""Chats in PostgreSQL. What a caller asks for is always looked for among their own."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from mesh.bulk import BulkInsert
from services.chat.domain.records import Chat, Exchange, Message
from services.chat.tables import chats, messages

_CHAT = (chats.c.id, chats.c.title, chats.c.created_at, chats.c.updated_at)
_MESSAGE = (
    messages.c.id,
    messages.c.chat_id,
    messages.c.role,
    messages.c.content,
    messages.c.created_at,
    messages.c.finish_reason,
)

_SAY = BulkInsert(messages, [field.name for field in fields(Message)])


async def create_chat(connection: AsyncConnection, owner_id: UUID, chat: Chat) -> None:
    """Inserts the chat, unless it is there already."""
    row = {"owner_id": owner_id, **asdict(chat)}
    await connection.execute(upsert(chats).values(row).on_conflict_do_nothing())


async def count_chats(connection: AsyncConnection, owner_id: UUID, *, most: int) -> int:
    """How many chats an account has, counted up to `most`."""
    some = select(chats.c.id).where(chats.c.owner_id == owner_id).limit(most).subquery()
    return (await connection.execute(select(func.count()).select_from(some))).scalar_one()


async def get_chat(connection: AsyncConnection, owner_id: UUID, chat_id: UUID) -> Chat | None:
    """The chat, or None when the owner has none of this id."""
    row = (await connection.execute(select(*_CHAT).where(_is(owner_id, chat_id)))).one_or_none()
    return Chat(*row) if row else None


async def list_chats(
    connection: AsyncConnection,
    owner_id: UUID,
    *,
    after: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Chat]:
    """Up to `limit` chats, the last changed first, past `after`, by `chats_of_owner`."""
    query = (
        select(*_CHAT)
        .where(chats.c.owner_id == owner_id)
        .order_by(chats.c.updated_at.desc(), chats.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(chats.c.updated_at, chats.c.id) < tuple_(*after))
    return [Chat(*row) for row in await connection.execute(query)]


async def update_chat(
    connection: AsyncConnection, owner_id: UUID, chat_id: UUID, *, title: str, now: datetime
) -> Chat | None:
    """The chat as it is now, or None when the owner has none of this id."""
    query = update(chats).where(_is(owner_id, chat_id)).values(title=title, updated_at=now)
    row = (await connection.execute(query.returning(*_CHAT))).one_or_none()
    return Chat(*row) if row else None


async def delete_chat(connection: AsyncConnection, owner_id: UUID, chat_id: UUID) -> bool:
    """Whether there was such a chat to delete, its messages with it."""
    return (await connection.execute(delete(chats).where(_is(owner_id, chat_id)))).rowcount > 0


async def list_messages(
    connection: AsyncConnection, chat_id: UUID, *, after: int, limit: int
) -> list[tuple[int, Message]]:
    """Up to `limit` messages and their places, past place `after`, oldest first."""
    query = (
        select(messages.c.place, *_MESSAGE)
        .where(messages.c.chat_id == chat_id, messages.c.place > after)
        .order_by(messages.c.place)
        .limit(limit)
    )
    return [(row[0], Message(*row[1:])) for row in await connection.execute(query)]


async def history(connection: AsyncConnection, chat_id: UUID, *, limit: int) -> list[Message]:
    """The last `limit` messages of a chat, oldest first."""
    query = (
        select(*_MESSAGE)
        .where(messages.c.chat_id == chat_id)
        .order_by(messages.c.place.desc())
        .limit(limit)
    )
    return [Message(*row) for row in await connection.execute(query)][::-1]


async def count_messages(connection: AsyncConnection, chat_id: UUID) -> int:
    """How many messages a chat has. Costs a look at each."""
    query = select(func.count()).where(messages.c.chat_id == chat_id)
    return int(await connection.scalar(query) or 0)


async def keep(connection: AsyncConnection, exchanges: Sequence[Exchange]) -> set[UUID]:
    """Stores questions with their replies; returns the chats that are there.

    One that was deleted meanwhile keeps nothing. Safe to repeat: ids decide.
    """
    there: set[UUID] = set()
    # In one order everywhere, or two groups could wait for each other.
    for exchange in sorted(exchanges, key=lambda e: e.chat.id):
        if exchange.new:
            await create_chat(connection, exchange.owner_id, exchange.chat)
            there.add(exchange.chat.id)
        elif await _touch(connection, exchange.chat):
            there.add(exchange.chat.id)
    said = [message for e in exchanges if e.chat.id in there for message in e.messages]
    if said:
        await _SAY.run(connection, said)
    return there


async def _touch(connection: AsyncConnection, chat: Chat) -> bool:
    """Whether the chat is there; then it can't be deleted until the transaction ends."""
    changed = update(chats).where(chats.c.id == chat.id).values(updated_at=chat.updated_at)
    return (await connection.execute(changed)).rowcount > 0


def _is(owner_id: UUID, chat_id: UUID) -> ColumnElement[bool]:
    return (chats.c.owner_id == owner_id) & (chats.c.id == chat_id)
