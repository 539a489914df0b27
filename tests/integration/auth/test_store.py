"""What is run again after a lost connection happens once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from mesh import db
from mesh.db import Database
from mesh.local import postgres
from services.auth.store import accounts, sessions
from tests import harness
from tests.integration.auth import api


@pytest.fixture
async def database(admin_dsn: str) -> AsyncIterator[Database]:
    async with db.opened(postgres.service_dsn(admin_dsn, "auth", harness.SECRET)) as opened:
        yield opened


async def test_an_account_is_made_once_per_id(database: Database) -> None:
    user_id, email, now = uuid4(), api.new_email(), datetime.now(UTC)

    made = [
        await database.run(
            lambda c: accounts.create_account(
                c, user_id, username=email[:20], email=email, password_hash="x", created_at=now
            )
        )
        for _ in range(2)
    ]

    assert made[0] == made[1]
    assert (made[0].id, made[0].created_at) == (user_id, now)


async def test_a_password_is_set_once_from_what_was_read(database: Database) -> None:
    user_id, email, now = uuid4(), api.new_email(), datetime.now(UTC)
    await database.run(
        lambda c: accounts.create_account(
            c, user_id, username=None, email=email, password_hash="old", created_at=now
        )
    )
    read = await database.run(lambda c: accounts.find_account(c, email))
    assert read is not None
    account, later = read, now + timedelta(seconds=1)

    done = [
        await database.run(lambda c, at=at: accounts.set_password(c, account, "new", at))
        for at in (later, later, later + timedelta(seconds=1))
    ]

    assert done == [True, True, False]
    assert not await database.run(lambda c: accounts.hold_password(c, account))


async def test_a_session_is_made_once_per_id(database: Database) -> None:
    user_id, session_id, email = uuid4(), uuid4(), api.new_email()
    now, life = datetime.now(UTC), timedelta(days=1)
    await database.run(
        lambda c: accounts.create_account(
            c, user_id, username=None, email=email, password_hash="x", created_at=now
        )
    )

    made = [
        await database.run(
            lambda c: sessions.create_session(
                c, session_id, user_id=user_id, user_agent="", life=life
            )
        )
        for _ in range(2)
    ]

    assert made == [True, False]
