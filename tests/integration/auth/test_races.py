"""Calls that meet: each is made to wait where the other one is, and then goes on."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from mesh import db
from mesh.local import postgres
from services.auth.domain.accounts import User
from services.auth.store import accounts
from tests import harness
from tests.integration.auth import api
from tests.support import eventually

Auth = pb_grpc.AuthServiceStub


@pytest.fixture
def admin(admin_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        yield connection


async def stuck(admin: psycopg.Connection, *calls: "asyncio.Task[object]") -> None:
    """Returns when each of `calls` waits for a lock, or is through without."""

    def all_wait() -> bool:
        (waiting,) = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        ).fetchone() or (0,)
        return waiting + sum(call.done() for call in calls) >= len(calls)

    await eventually(all_wait)


async def test_a_second_first_account_waits_for_the_first_and_is_no_admin(
    admin_dsn: str, admin: psycopg.Connection
) -> None:
    empty = harness.new_database(admin_dsn, "race_of_first_accounts")
    made, leave = asyncio.Event(), asyncio.Event()

    async def create(connection: AsyncConnection) -> User:
        return await accounts.create_account(
            connection,
            uuid4(),
            username=None,
            email=api.new_email(),
            password_hash="x",
            created_at=datetime.now(UTC),
        )

    async def create_slowly(connection: AsyncConnection) -> User:
        user = await create(connection)
        made.set()
        await leave.wait()
        return user

    async with db.opened(postgres.service_dsn(empty, "auth", harness.SECRET)) as database:
        first = asyncio.create_task(database.run(create_slowly))
        await made.wait()
        second = asyncio.create_task(database.run(create))
        await stuck(admin, second)
        leave.set()

        roles = [(await first).role, (await second).role]

    assert roles == ["admin", "user"]


async def test_a_login_by_a_password_that_is_changed_meanwhile_is_refused(
    auth: Auth, admin_dsn: str, admin: psycopg.Connection
) -> None:
    user = await api.register(auth)
    with psycopg.connect(admin_dsn) as changing:
        changing.execute(
            "UPDATE auth.users SET password_changed_at = now() WHERE id = %s", [user.id]
        )
        login = asyncio.create_task(api.outcome(api.login(auth, user.email)))
        await stuck(admin, login)

    assert await login == "WRONG_PASSWORD"


async def test_one_of_two_refreshes_spends_the_token_and_both_get_the_next(
    auth: Auth, admin_dsn: str, admin: psycopg.Connection
) -> None:
    user = await api.register(auth)
    token = (await api.login(auth, user.email)).refresh_token
    with psycopg.connect(admin_dsn) as holding:
        holding.execute("SELECT FROM auth.sessions WHERE user_id = %s FOR UPDATE", [user.id])
        calls = [asyncio.create_task(api.refresh(auth, token)) for _ in range(2)]
        await stuck(admin, *calls)

    one, other = [(await call).refresh_token for call in calls]

    assert one == other
    query = "SELECT generation FROM auth.sessions WHERE user_id = %s"
    assert admin.execute(query, [user.id]).fetchone() == (1,)
