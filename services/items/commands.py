"""What each RPC of items does: one transaction over the store."""

from uuid import UUID, uuid4

from mesh import errors, pages
from mesh.db import Database
from services.items import store
from services.items.domain import Draft, Item


class Items:
    """The items of one owner at a time."""

    def __init__(self, database: Database, tokens: pages.PageTokens) -> None:
        """Takes where items are kept, and what signs places in lists."""
        self._database = database
        self._tokens = tokens

    async def create(self, owner_id: UUID, draft: Draft) -> Item:
        """The new item."""
        creation_id = uuid4()  # Here, and not in what may be run again.
        return await self._database.run(
            lambda c: store.create_item(c, owner_id, creation_id, draft)
        )

    async def get(self, owner_id: UUID, item_id: int) -> Item:
        """The item. Raises NotFound."""
        return _found(
            await self._database.run(lambda c: store.get_item(c, owner_id, item_id)), item_id
        )

    async def page(self, owner_id: UUID, page_size: int, page_token: str) -> tuple[list[Item], str]:
        """A page of items, and the token of the next or "". Raises InvalidRequest."""
        name, size = f"items/{owner_id}", pages.size(page_size)
        place = self._tokens.read(name, page_token)
        after = place[0] if place else 0
        found = await self._database.run(
            lambda c: store.list_items(c, owner_id, after=after, limit=size + 1)
        )
        page = found[:size]
        more = len(found) > size
        return page, self._tokens.write(name, [page[-1].id]) if more else ""

    async def replace(self, owner_id: UUID, item_id: int, draft: Draft) -> Item:
        """The item as it is now. Raises NotFound."""
        return _found(
            await self._database.run(lambda c: store.replace_item(c, owner_id, item_id, draft)),
            item_id,
        )

    async def delete(self, owner_id: UUID, item_id: int) -> None:
        """Deletes for good. Raises NotFound."""
        if not await self._database.run(lambda c: store.delete_item(c, owner_id, item_id)):
            raise _missing(item_id)


def _found(item: Item | None, item_id: int) -> Item:
    if item is None:
        raise _missing(item_id)
    return item


def _missing(item_id: int) -> errors.NotFound:
    return errors.NotFound(
        "ITEM_NOT_FOUND", f"no item {item_id}", metadata={"item_id": str(item_id)}
    )
