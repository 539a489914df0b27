"""Builds all objects of usage, in order."""

from contextlib import AsyncExitStack
from pathlib import Path

from khesht.usage.v1 import usage_internal_service_pb2 as internal_pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as internal_pb_grpc
from khesht.usage.v1 import usage_service_pb2 as pb
from khesht.usage.v1 import usage_service_pb2_grpc as pb_grpc
from mesh import background, db, pages, schema
from mesh.identity import identity
from mesh.server import Server
from services.usage.access import RULES
from services.usage.commands import reaper
from services.usage.commands.ledger import Ledger
from services.usage.commands.reaper import Reaper
from services.usage.commands.records import Usage
from services.usage.config import Config
from services.usage.servicer.internal import UsageInternalServicer
from services.usage.servicer.usage import UsageServicer


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises OSError when a file can't be read."""
    database = await stack.enter_async_context(db.of(config))
    callers = await stack.enter_async_context(identity.opened(config))
    usage = Usage(database, pages.PageTokens(config.secret_key.get_secret_value()))
    ledger = Ledger(database)
    look = background.every(reaper.LOOK_EVERY, Reaper(ledger).look)
    await stack.enter_async_context(background.running(look))
    server = Server(
        config.certificate,
        RULES,
        callers,
        limits=config.call_limits,
        ready=[schema.ready(database, Path(__file__).parent)],
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["UsageService"],
        pb_grpc.add_UsageServiceServicer_to_server,
        UsageServicer(usage, ledger),
    )
    server.add(
        internal_pb.DESCRIPTOR.services_by_name["UsageInternalService"],
        internal_pb_grpc.add_UsageInternalServiceServicer_to_server,
        UsageInternalServicer(ledger),
    )
    return server
