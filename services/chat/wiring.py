"""Builds all objects of chat, in order."""

from contextlib import AsyncExitStack

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_pb_grpc
from khesht.chat.v1 import health_service_pb2 as health_pb
from khesht.chat.v1 import health_service_pb2_grpc as health_grpc
from mesh import access, client, db, pages
from mesh.identity import identity
from mesh.server import Server
from services.chat.access import rules
from services.chat.commands.chats import Chats
from services.chat.commands.health import Health
from services.chat.commands.replies import Replies
from services.chat.commands.runner import Runner
from services.chat.commands.settle import Settler
from services.chat.commands.texts import Texts, read_prompts
from services.chat.config import Config
from services.chat.domain.conversation import Limits
from services.chat.providers.router import Router
from services.chat.servicer.chat import ChatServicer
from services.chat.servicer.completions import CompletionsServicer
from services.chat.servicer.health import HealthServicer


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises ConfigError, and OSError for a missing file."""
    database = await stack.enter_async_context(db.opened(config.database_url.get_secret_value()))
    callers = await stack.enter_async_context(identity.opened(config))
    usage = await stack.enter_async_context(
        client.channel(
            "usage",
            config.usage_address,
            config.certificate,
            repeatable=("khesht.usage.v1.UsageInternalService/RecordUsage",),
        )
    )
    settler = await stack.enter_async_context(Settler.opened(database, usage))
    catalog = config.catalog()
    # Callers may bring keys of their own to providers without a key of ours.
    router = await stack.enter_async_context(Router.opened(config.accounts, catalog))
    runner = Runner(router, settler)
    stack.push_async_callback(runner.finish)  # Before what it speaks to is closed.
    prefixes = {account.name: account.key_prefix for account in config.accounts}
    limits = Limits(config.message_limit, config.history_limit)
    replies = Replies(database, catalog, limits, runner, prefixes)
    about_texts = Limits(config.text_limit, config.history_limit)
    texts = Texts(Replies(database, catalog, about_texts, runner, prefixes), read_prompts())
    chats = Chats(database, pages.PageTokens(config.secret_key.get_secret_value()))

    def named(name: str) -> access.Model:
        model = catalog.called(name)
        return access.Model(model.id, model.aliases) if model else access.Model(name)

    server = Server(
        config.certificate,
        rules(named),
        callers,
        ready=[database.is_up],
        draining=runner.drain,
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["ChatService"],
        pb_grpc.add_ChatServiceServicer_to_server,
        ChatServicer(replies, texts, chats, catalog, anonymous_byok=config.anonymous_byok),
    )
    server.add(
        completions_pb.DESCRIPTOR.services_by_name["CompletionsService"],
        completions_pb_grpc.add_CompletionsServiceServicer_to_server,
        CompletionsServicer(replies),
    )
    server.add(
        health_pb.DESCRIPTOR.services_by_name["HealthService"],
        health_grpc.add_HealthServiceServicer_to_server,
        HealthServicer(await _health(config, server, stack), router),
    )
    return server


async def _health(config: Config, server: Server, stack: AsyncExitStack) -> Health:
    addresses = {
        "auth": config.auth_address,
        "keys": config.keys_address,
        "usage": config.usage_address,
        "items": config.items_address,
    }
    others = {
        name: await stack.enter_async_context(client.channel(name, address, config.certificate))
        for name, address in addresses.items()
    }
    return Health(others, lambda: server.is_ready)
