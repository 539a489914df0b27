"""Builds all objects of keys, in order."""

from contextlib import AsyncExitStack

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_pb_grpc
from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from mesh import background, db, pages
from mesh.identity import identity
from mesh.server import Server
from services.keys import cache, changes, last_used, store
from services.keys.access import RULES
from services.keys.authorize import Authorizer
from services.keys.cache import KeyCache
from services.keys.commands import Keys
from services.keys.config import Config
from services.keys.last_used import LastUsed
from services.keys.limiter import Limiter
from services.keys.secret import Digests
from services.keys.servicer import KeysInternalServicer, KeysServicer


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises OSError when a file can't be read."""
    url, secret = config.database_url.get_secret_value(), config.secret_key.get_secret_value()
    limit = config.rate_limit_per_minute
    database = await stack.enter_async_context(db.opened(url))
    callers = await stack.enter_async_context(identity.opened(config))
    digests = Digests(secret)
    known = KeyCache(lambda wanted: database.run(lambda c: store.keys_of(c, wanted)))
    uses = LastUsed(lambda used_at: database.run(lambda c: store.set_last_used(c, used_at)))
    keys = Keys(database, pages.PageTokens(secret), digests, known.forget, limit)
    authorizer = Authorizer(digests, known, Limiter(), uses, limit)
    stack.push_async_callback(background.attempt, uses.flush)
    for work in (
        background.every(last_used.WRITE_EVERY, uses.flush),
        background.every(cache.REFRESH_EVERY, known.refresh),
        changes.follow(url, known.forget, known.clear),
    ):
        await stack.enter_async_context(background.running(work))
    server = Server(
        config.certificate, RULES, callers, ready=[database.is_up], reflect=not config.production
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["KeysService"],
        pb_grpc.add_KeysServiceServicer_to_server,
        KeysServicer(keys),
    )
    server.add(
        internal_pb.DESCRIPTOR.services_by_name["KeysInternalService"],
        internal_pb_grpc.add_KeysInternalServiceServicer_to_server,
        KeysInternalServicer(authorizer),
    )
    return server
