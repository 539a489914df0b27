"""Builds all objects of keys, in order."""

from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_pb_grpc
from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import provider_credentials_service_pb2 as credentials_pb
from khesht.keys.v1 import provider_credentials_service_pb2_grpc as credentials_grpc
from mesh import background, db, notices, pages, schema
from mesh.identity import identity
from mesh.server import Server
from services.keys import cache, last_used
from services.keys.access import RULES
from services.keys.alone import alone
from services.keys.authorize import Authorizer
from services.keys.cache import Cache
from services.keys.commands.credentials import Credentials
from services.keys.commands.keys import Keys
from services.keys.config import Config
from services.keys.last_used import LastUsed
from services.keys.limiter import Limiter, Limits
from services.keys.meter import Meter, Rates
from services.keys.sealing import Sealer
from services.keys.secret import Digests
from services.keys.servicer.credentials import ProviderCredentialsServicer
from services.keys.servicer.internal import KeysInternalServicer
from services.keys.servicer.keys import KeysServicer
from services.keys.shared_limits import SharedCounts, SharedLimiter
from services.keys.store import credentials as credentials_store
from services.keys.store import keys as keys_store
from services.keys.store.changes import CHANGES


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises OSError when a file can't be read, ConfigError."""
    url, secret = config.database_url.get_secret_value(), config.secrets[0]
    database = await stack.enter_async_context(db.of(config))
    callers = await stack.enter_async_context(identity.opened(config))
    digests, tokens = Digests(secret), pages.PageTokens(secret)
    known = Cache(lambda wanted: database.run(lambda c: keys_store.keys_of(c, wanted)))
    accounts = Cache(
        lambda wanted: database.run(lambda c: credentials_store.accounts_of(c, wanted))
    )
    uses = LastUsed(lambda used_at: database.run(lambda c: keys_store.set_last_used(c, used_at)))
    calls, spent_tokens = await _limits(config, stack)
    meter = Meter(
        calls,
        spent_tokens,
        Rates(config.rate_limit_per_minute, config.token_limit_per_minute),
        lambda key_ids: database.run_one(lambda c: keys_store.token_limits(c, key_ids)),
    )

    def forget(changed: UUID) -> None:
        known.forget(changed)
        accounts.forget(changed)

    def forget_all() -> None:
        known.clear()
        accounts.clear()

    keys = Keys(
        database, tokens, digests, forget, config.rate_limit_per_minute, config.keys_per_account
    )
    credentials = Credentials(database, tokens, Sealer(config.secrets), forget)
    authorizer = Authorizer(digests, known, accounts, meter, uses)
    stack.push_async_callback(background.attempt, uses.flush)
    for work in (
        background.every(last_used.WRITE_EVERY, uses.flush),
        background.every(cache.REFRESH_EVERY, known.refresh),
        background.every(cache.REFRESH_EVERY, accounts.refresh),
        notices.follow(url, CHANGES, forget, forget_all),
    ):
        await stack.enter_async_context(background.running(work))
    server = Server(
        config.certificate,
        RULES,
        callers,
        limits=config.call_limits,
        ready=[schema.ready(database, Path(__file__).parent)],
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["KeysService"],
        pb_grpc.add_KeysServiceServicer_to_server,
        KeysServicer(keys),
    )
    server.add(
        credentials_pb.DESCRIPTOR.services_by_name["ProviderCredentialsService"],
        credentials_grpc.add_ProviderCredentialsServiceServicer_to_server,
        ProviderCredentialsServicer(credentials),
    )
    server.add(
        internal_pb.DESCRIPTOR.services_by_name["KeysInternalService"],
        internal_pb_grpc.add_KeysInternalServiceServicer_to_server,
        KeysInternalServicer(authorizer, keys, meter, credentials),
    )
    return server


async def _limits(config: Config, stack: AsyncExitStack) -> tuple[Limits, Limits]:
    """What counts calls, and what counts tokens. Raises ConfigError where two would count alone."""
    if config.redis_url is None:
        url = config.database_url.get_secret_value()
        await stack.enter_async_context(alone(url, config.lame_duck))
        return Limiter(), Limiter()
    counts = SharedCounts(config.redis_url.get_secret_value())
    stack.push_async_callback(counts.close)
    replicas = config.keys_replicas
    return SharedLimiter(counts, "calls", replicas), SharedLimiter(counts, "tokens", replicas)
