"""Builds all objects of chat and of its workers, in order."""

import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from khesht.auth.v1 import auth_internal_service_pb2_grpc as auth_grpc
from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from khesht.chat.v1 import completions_service_pb2 as completions_pb
from khesht.chat.v1 import completions_service_pb2_grpc as completions_pb_grpc
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from khesht.chat.v1 import generations_service_pb2_grpc as generations_grpc
from khesht.chat.v1 import health_service_pb2 as health_pb
from khesht.chat.v1 import health_service_pb2_grpc as health_grpc
from khesht.chat.v1 import tasks_service_pb2 as tasks_pb
from khesht.chat.v1 import tasks_service_pb2_grpc as tasks_grpc
from khesht.keys.v1 import keys_internal_service_pb2_grpc as keys_grpc
from khesht.usage.v1 import usage_internal_service_pb2_grpc as usage_grpc
from mesh import access, background, client, db, lane, notices, pages, schema
from mesh.db import Database
from mesh.identity import identity
from mesh.server import Server
from services.chat.access import rules
from services.chat.commands import budget, budget_watch, keeper, revocation
from services.chat.commands.budget import Budgets
from services.chat.commands.budget_watch import BudgetWatch
from services.chat.commands.chats import Chats, Room
from services.chat.commands.credentials import Credentials
from services.chat.commands.generations import Generations
from services.chat.commands.health import Health
from services.chat.commands.keeper import Keeper
from services.chat.commands.meter import Meter
from services.chat.commands.mirrors import Mirrors
from services.chat.commands.replay import Replay
from services.chat.commands.replies import Replies
from services.chat.commands.revocation import Revocation
from services.chat.commands.runner import Runner
from services.chat.commands.tasks import Tasks, Worker
from services.chat.commands.tell import Teller
from services.chat.commands.texts import Texts, read_prompts
from services.chat.commands.work_off import WorkOff
from services.chat.commands.write import Writer
from services.chat.config import Config
from services.chat.domain.conversation import Limits
from services.chat.domain.models import Catalog
from services.chat.providers.router import Router
from services.chat.servicer.chat import ChatServicer
from services.chat.servicer.completions import CompletionsServicer
from services.chat.servicer.generations import GenerationsServicer
from services.chat.servicer.health import HealthServicer
from services.chat.servicer.pings import Pings
from services.chat.servicer.tasks import TasksServicer
from services.chat.store.generations import CANCELS

# MiB that a reply may have when it is not written down while it comes.
_UNWRITTEN = 8


@dataclass(slots=True)
class _Core:
    """What runs generations, in chat as in its workers."""

    database: Database
    catalog: Catalog
    router: Router
    runner: Runner
    teller: Teller
    credentials: Credentials
    revocation: Revocation


async def build(config: Config, stack: AsyncExitStack) -> Server:
    """The server, not yet started. Raises ConfigError, and OSError for a missing file."""
    callers = await stack.enter_async_context(identity.opened(config))
    core = await _core(config, stack)
    tokens = pages.PageTokens(config.secret_key.get_secret_value())
    mirrors = Mirrors(core.database, Replay(core.database))
    await stack.enter_async_context(background.running(mirrors.look()))
    generations = Generations(core.database, core.runner, mirrors, tokens)
    room = Room(core.database, config.chats_limit)
    replies = _replies(config, core, generations, room, config.message_limit)
    texts = Texts(_replies(config, core, generations, room, config.text_limit), read_prompts())
    chats = Chats(core.database, tokens, room)
    pings = Pings(config.stream_headers_after, config.stream_ping_interval)

    def named(name: str) -> access.Model:
        model = core.catalog.called(name)
        return access.Model(model.id, model.aliases) if model else access.Model(name)

    server = Server(
        config.certificate,
        rules(named),
        callers,
        limits=config.call_limits,
        ready=[schema.ready(core.database, Path(__file__).parent)],
        draining=core.runner.drain,
        idle=core.runner.idle,
        reflect=not config.production,
    )
    server.add(
        pb.DESCRIPTOR.services_by_name["ChatService"],
        pb_grpc.add_ChatServiceServicer_to_server,
        ChatServicer(
            replies, texts, chats, core.catalog, pings, anonymous_byok=config.anonymous_byok
        ),
    )
    server.add(
        completions_pb.DESCRIPTOR.services_by_name["CompletionsService"],
        completions_pb_grpc.add_CompletionsServiceServicer_to_server,
        CompletionsServicer(replies, pings),
    )
    server.add(
        generations_pb.DESCRIPTOR.services_by_name["GenerationsService"],
        generations_grpc.add_GenerationsServiceServicer_to_server,
        GenerationsServicer(generations, core.revocation, pings),
    )
    server.add(
        tasks_pb.DESCRIPTOR.services_by_name["TasksService"],
        tasks_grpc.add_TasksServiceServicer_to_server,
        TasksServicer(Tasks(core.database, replies, generations, config.waiting_tasks_limit)),
    )
    server.add(
        health_pb.DESCRIPTOR.services_by_name["HealthService"],
        health_grpc.add_HealthServiceServicer_to_server,
        HealthServicer(await _health(config, server, stack), core.router),
    )
    return server


async def build_worker(config: Config, stack: AsyncExitStack) -> Server:
    """A worker: a server that serves its health alone, with work going on beside it."""
    callers = await stack.enter_async_context(identity.opened(config))
    core = await _core(config, stack)
    worker = Worker(core.database, core.catalog, core.runner, core.teller, core.credentials)
    work_off = WorkOff(config.database_url.get_secret_value(), worker, config.worker_concurrency)
    await stack.enter_async_context(work_off.at_work())
    return Server(
        config.certificate,
        {},
        callers,
        ready=[schema.ready(core.database, Path(__file__).parent)],
        draining=core.runner.drain,
        idle=work_off.finish,
    )


async def _core(config: Config, stack: AsyncExitStack) -> _Core:
    url = config.database_url.get_secret_value()
    database = await stack.enter_async_context(db.of(config))
    channel = client.channel(
        "usage",
        config.usage_address,
        config.certificate,
        repeatable=tuple(
            f"khesht.usage.v1.UsageInternalService/{name}"
            for name in ("RecordUsage", "HoldBudget", "CheckHolds", "RenewHolds", "ReleaseHolds")
        ),
    )
    usage = usage_grpc.UsageInternalServiceStub(await stack.enter_async_context(channel))
    teller = await stack.enter_async_context(Teller(database, usage).at_work())
    opener = await stack.enter_async_context(lane.opened(url))
    closer = await stack.enter_async_context(lane.opened(url))
    writer = await stack.enter_async_context(
        Writer(database, opener, closer, teller.tell, journals=config.journal).at_work()
    )
    catalog = config.catalog()
    # Callers may bring keys of their own to providers without a key of ours.
    router = await stack.enter_async_context(Router.opened(config.accounts, catalog))
    keys = keys_grpc.KeysInternalServiceStub(
        await stack.enter_async_context(
            client.channel("keys", config.keys_address, config.certificate)
        )
    )
    auth = auth_grpc.AuthInternalServiceStub(
        await stack.enter_async_context(
            client.channel("auth", config.auth_address, config.certificate)
        )
    )
    budgets = Budgets(usage, catalog, config.budget_floor_tokens)
    replay = Replay(database)
    # Without a journal all of it stays in memory.
    most_mib = config.reply_limit_mib if config.journal else min(config.reply_limit_mib, _UNWRITTEN)
    earlier = replay.earlier if config.journal else None
    runner = Runner(
        uuid.uuid4(), router, writer, budgets, Meter(keys), most_mib << 20, earlier=earlier
    )
    keep = Keeper(database, runner, teller, timedelta(days=config.generations_kept_days))
    revoked = Revocation(database, runner, keys, auth)
    watch = BudgetWatch(runner, budgets, revoked)
    await keep.beat()
    stack.push_async_callback(background.attempt, keep.leave)
    stack.push_async_callback(runner.finish)  # Before what it speaks to is closed.
    for work in (
        background.every(keeper.BEAT_EVERY, keep.beat),
        background.every(keeper.SWEEP_EVERY, keep.sweep),
        background.every(budget.RENEW_EVERY, budgets.renew),
        background.every(revocation.LOOK_EVERY_S, revoked.look),
        background.every(budget_watch.LOOK_EVERY_S, watch.look),
        notices.follow(url, CANCELS, runner.cancel, lambda: None),
    ):
        await stack.enter_async_context(background.running(work))
    return _Core(database, catalog, router, runner, teller, Credentials(keys), revoked)


def _replies(
    config: Config, core: _Core, generations: Generations, room: Room, longest: int
) -> Replies:
    prefixes = {account.name: account.key_prefix for account in config.accounts}
    limits = Limits(longest, config.history_limit)
    return Replies(core.catalog, limits, core.runner, generations, prefixes, core.credentials, room)


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
