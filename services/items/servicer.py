"""Messages in, one command, messages out."""

from typing import TypeVar
from uuid import UUID

from khesht.items.v1 import items_service_pb2 as pb
from khesht.items.v1 import items_service_pb2_grpc as pb_grpc
from mesh.calls import call
from mesh.server import Context
from services.items.commands import Items
from services.items.domain import Draft, Item

# Messages that are an item.
M = TypeVar("M", pb.Item, pb.CreateItemResponse, pb.GetItemResponse, pb.ReplaceItemResponse)


class ItemsServicer(pb_grpc.ItemsServiceServicer):
    """Serves `khesht.items.v1.ItemsService`."""

    def __init__(self, items: Items) -> None:
        """Takes the commands."""
        self._items = items

    async def CreateItem(
        self, request: pb.CreateItemRequest, context: Context
    ) -> pb.CreateItemResponse:
        """Creates an item for the caller."""
        item = await self._items.create(_owner(), _draft(request))
        return _to_pb(pb.CreateItemResponse, item)

    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:
        """Gets one of the caller's items."""
        return _to_pb(pb.GetItemResponse, await self._items.get(_owner(), request.item_id))

    async def ListItems(
        self, request: pb.ListItemsRequest, context: Context
    ) -> pb.ListItemsResponse:
        """Lists the caller's items."""
        page, token = await self._items.page(_owner(), request.page_size, request.page_token)
        return pb.ListItemsResponse(
            items=[_to_pb(pb.Item, item) for item in page], next_page_token=token
        )

    async def ReplaceItem(
        self, request: pb.ReplaceItemRequest, context: Context
    ) -> pb.ReplaceItemResponse:
        """Replaces one of the caller's items."""
        item = await self._items.replace(_owner(), request.item_id, _draft(request))
        return _to_pb(pb.ReplaceItemResponse, item)

    async def DeleteItem(
        self, request: pb.DeleteItemRequest, context: Context
    ) -> pb.DeleteItemResponse:
        """Deletes one of the caller's items."""
        await self._items.delete(_owner(), request.item_id)
        return pb.DeleteItemResponse()


def _owner() -> UUID:
    return call.current().caller.user_id


def _draft(request: pb.CreateItemRequest | pb.ReplaceItemRequest) -> Draft:
    return Draft(
        name=request.name,
        description=request.description if request.HasField("description") else None,
        price=request.price,
        is_available=request.is_available if request.HasField("is_available") else True,
    )


def _to_pb(message: type[M], item: Item) -> M:
    return message(
        id=item.id,
        name=item.name,
        description=item.description,
        price=item.price,
        is_available=item.is_available,
    )
