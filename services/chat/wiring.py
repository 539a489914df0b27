"""Builds all objects of chat, in order."""

from contextlib import AsyncExitStack
from typing import Any

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from mesh import access, client, db, pages
from mesh.identity import identity
from mesh.server import Server
from services.chat.access import rules
from services.chat.commands.chats import Chats
from services.chat.commands.replies import Replies
from services.chat.commands.runner import Runner
from services.chat.commands.settle import Settler
from services.chat.config import Config
from services.chat.domain.conversation import Limits
from services.chat.domain.provider import Provider
from services.chat.providers.echo import Echo
from services.chat.providers.openai import OpenAI, Timeouts
from services.chat.servicer import ChatServicer


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
    providers = await _providers(config, stack)
    catalog = config.catalog()
    runner = Runner(providers, settler)
    stack.push_async_callback(runner.finish)  # Before what it speaks to is closed.
    limits = Limits(config.message_limit, config.history_limit)
    replies = Replies(database, catalog, limits, runner)
    chats = Chats(database, pages.PageTokens(config.secret_key.get_secret_value()))

    def model_of(request: Any) -> access.Model:  # noqa: ANN401 - requests share the field
        model = catalog.called(request.model)
        return access.Model(model.id, model.aliases) if model else access.Model(request.model)

    server = Server(
        config.certificate,
        rules(model_of),
        callers,
        ready=[database.is_up],
        draining=runner.drain,
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["ChatService"],
        pb_grpc.add_ChatServiceServicer_to_server,
        ChatServicer(replies, chats, catalog),
    )
    return server


async def _providers(config: Config, stack: AsyncExitStack) -> dict[str, Provider]:
    providers: dict[str, Provider] = {"echo": Echo()}
    if config.openai_api_key is not None:
        timeouts = Timeouts(
            config.provider_connect_timeout,
            config.provider_idle_timeout,
            config.provider_total_timeout,
        )
        key = config.openai_api_key.get_secret_value()
        opened = OpenAI.opened("openai", config.openai_base_url, key, timeouts)
        providers["openai"] = await stack.enter_async_context(opened)
    return providers
