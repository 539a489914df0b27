"""Builds all objects of items, in order."""

from contextlib import AsyncExitStack
from pathlib import Path

from khesht.items.v1 import items_service_pb2 as pb
from khesht.items.v1 import items_service_pb2_grpc as pb_grpc
from mesh import db, pages, schema
from mesh.identity import identity
from mesh.server import Server
from services.items.access import RULES
from services.items.commands import Items
from services.items.config import Config
from services.items.servicer import ItemsServicer


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises OSError when a file can't be read."""
    database = await stack.enter_async_context(db.of(config))
    callers = await stack.enter_async_context(identity.opened(config))
    items = Items(database, pages.PageTokens(config.secret_key.get_secret_value()))
    server = Server(
        config.certificate,
        RULES,
        callers,
        limits=config.call_limits,
        ready=[schema.ready(database, Path(__file__).parent)],
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["ItemsService"],
        pb_grpc.add_ItemsServiceServicer_to_server,
        ItemsServicer(items),
    )
    return server
