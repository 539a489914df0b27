"""Items in PostgreSQL. Every function is given the owner: no other row is seen."""

from uuid import UUID

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.items.domain import Draft, Item
from services.items.tables import items

_COLUMNS = (items.c.id, items.c.name, items.c.description, items.c.price, items.c.is_available)


async def create_item(
    connection: AsyncConnection, owner_id: UUID, creation_id: UUID, draft: Draft
) -> Item:
    """The new item, under the next id; the one of this `creation_id` when there is one."""
    values = {"owner_id": owner_id, "creation_id": creation_id, **_values(draft)}
    query = (
        insert(items)
        .values(values)
        .on_conflict_do_update(index_elements=["creation_id"], set_={"owner_id": owner_id})
        .returning(*_COLUMNS)
    )
    return Item(*(await connection.execute(query)).one())


async def get_item(connection: AsyncConnection, owner_id: UUID, item_id: int) -> Item | None:
    """The item, or None when the owner has none of this id."""
    query = select(*_COLUMNS).where(_is(owner_id, item_id))
    row = (await connection.execute(query)).one_or_none()
    return Item(*row) if row else None


async def list_items(
    connection: AsyncConnection, owner_id: UUID, *, after: int, limit: int
) -> list[Item]:
    """Up to `limit` items with ids above `after`, ascending, by `items_of_owner`."""
    query = (
        select(*_COLUMNS)
        .where(items.c.owner_id == owner_id, items.c.id > after)
        .order_by(items.c.id)
        .limit(limit)
    )
    return [Item(*row) for row in await connection.execute(query)]


async def replace_item(
    connection: AsyncConnection, owner_id: UUID, item_id: int, draft: Draft
) -> Item | None:
    """The item as it is now, or None when the owner has none of this id."""
    query = update(items).where(_is(owner_id, item_id)).values(**_values(draft))
    row = (await connection.execute(query.returning(*_COLUMNS))).one_or_none()
    return Item(*row) if row else None


async def delete_item(connection: AsyncConnection, owner_id: UUID, item_id: int) -> bool:
    """Whether there was such an item to delete."""
    query = delete(items).where(_is(owner_id, item_id))
    return (await connection.execute(query)).rowcount > 0


def _is(owner_id: UUID, item_id: int) -> ColumnElement[bool]:
    return (items.c.owner_id == owner_id) & (items.c.id == item_id)


def _values(draft: Draft) -> dict[str, object]:
    return {
        "name": draft.name,
        "description": draft.description,
        "price": draft.price,
        "is_available": draft.is_available,
    }
