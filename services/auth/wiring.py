"""Builds all objects of auth, in order."""

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from khesht.auth.v1 import auth_internal_service_pb2 as internal_pb
from khesht.auth.v1 import auth_internal_service_pb2_grpc as internal_pb_grpc
from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from mesh import db, pages, schema
from mesh.identity import identity
from mesh.server import Server
from services.auth.access import RULES
from services.auth.commands.accounts import Accounts
from services.auth.commands.attempts import Attempts
from services.auth.commands.sessions import Sessions
from services.auth.config import Config
from services.auth.domain.attempts import Limits
from services.auth.domain.passwords import Policy
from services.auth.passwords import Passwords
from services.auth.servicer import AuthInternalServicer, AuthServicer
from services.auth.tokens import AccessTokens, RefreshTokens


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises OSError when a file can't be read."""
    database = await stack.enter_async_context(db.of(config))
    callers = await stack.enter_async_context(identity.opened(config))
    passwords = Passwords()
    stack.callback(passwords.close)
    secret = config.secrets[0]
    limits = Limits(
        secret,
        per_account=config.login_failures_per_account,
        per_address=config.login_failures_per_address,
        of_strangers=config.login_failures_of_strangers,
        registrations=config.registrations_per_address,
    )
    attempts = Attempts(limits)
    tokens = AccessTokens(config.secrets, config.access_token_seconds)
    policy = Policy(production=config.production)
    sessions = Sessions(
        database,
        passwords,
        attempts,
        tokens,
        RefreshTokens(config.secrets),
        pages.PageTokens(secret),
        timedelta(days=config.refresh_token_days),
    )
    accounts = Accounts(database, passwords, policy, attempts)
    server = Server(
        config.certificate,
        RULES,
        callers,
        limits=config.call_limits,
        ready=[schema.ready(database, Path(__file__).parent)],
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["AuthService"],
        pb_grpc.add_AuthServiceServicer_to_server,
        AuthServicer(accounts, sessions, tokens.public_keys),
    )
    server.add(
        internal_pb.DESCRIPTOR.services_by_name["AuthInternalService"],
        internal_pb_grpc.add_AuthInternalServiceServicer_to_server,
        AuthInternalServicer(sessions),
    )
    return server
