"""Generations are kept for a while, however many there are, and forgotten with their journal."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from mesh import db
from mesh.local import postgres
from services.chat.commands.keeper import Keeper
from services.chat.commands.runner import Runner
from services.chat.store import generations
from tests import harness

UNUSED: Any = None
MANY = 2_500

OLD = """
INSERT INTO chat.generations (id, caller_id, user_id, request_id, model, provider, prompt_price,
  completion_price, prompt_estimate, status, created_at, dedup_key, tail, ended_at, owed)
SELECT gen_random_uuid(), %(user)s, %(user)s, 'test', 'm', 'p', 0, 0, 0, 'completed',
  now() - age, 'name ' || n, 'text', now() - age, owed
FROM (
  SELECT n, interval '40 days' AS age, false AS owed FROM generate_series(1, %(many)s) n
  UNION ALL SELECT 0, interval '40 days', true
  UNION ALL SELECT -1, interval '2 days', false
  UNION ALL SELECT -2, interval '1 hour', false
) AS made
"""
KEPT = """
SELECT dedup_key, owed, now() - ended_at > interval '30 days' FROM chat.generations
WHERE user_id = %s ORDER BY ended_at
"""
WRITTEN = """
SELECT count(*) FROM chat.journal WHERE parts = %s
"""


@pytest.fixture
async def database(admin_dsn: str):
    async with db.opened(postgres.service_dsn(admin_dsn, "chat", harness.SECRET)) as opened:
        yield opened


async def test_what_is_old_is_forgotten_a_portion_at_a_time(
    mesh: harness.Mesh, admin_dsn: str, database: db.Database, user: uuid.UUID
):
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(OLD, {"user": user, "many": MANY})
        connection.execute(
            "INSERT INTO chat.journal SELECT id, 1, 0, 1, %s FROM chat.generations"
            " WHERE user_id = %s",
            [user.bytes, user],
        )
        before = datetime.now(UTC) - timedelta(days=30)
        assert await database.run(lambda c: generations.forget(c, before, limit=10))
        assert connection.execute(WRITTEN, [user.bytes]).fetchone() == (MANY + 3 - 10,)
        runner = Runner(uuid.uuid4(), UNUSED, UNUSED, UNUSED, UNUSED)
        await Keeper(database, runner, UNUSED, timedelta(days=30)).sweep()
        # What usage was not told stays, and a name can be used again after a day.
        kept = [(None, True, True), (None, False, False), ("name -2", False, False)]
        assert connection.execute(KEPT, [user]).fetchall() == kept
        assert connection.execute(WRITTEN, [user.bytes]).fetchone() == (3,)


async def test_a_list_is_read_without_texts(
    mesh: harness.Mesh, admin_dsn: str, database: db.Database, user: uuid.UUID
):
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(OLD, {"user": user, "many": 1})
        listed = await database.run_one(
            lambda c: generations.list_newest(c, user, {}, after=None, limit=10)
        )
        assert [row.tail for row in listed] == [None] * 4
