"""The queue's own view of workers that died, and of tasks that wait for long."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from procrastinate.jobs import Job

from mesh import errors
from mesh.local import postgres
from services.chat import queue
from services.chat.commands.runner import now
from services.chat.commands.work_off import Retry, Stalled
from tests import harness

JOB = """
WITH worker AS (INSERT INTO procrastinate_workers (last_heartbeat)
  VALUES (now() - interval '1 minute') RETURNING id)
INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)
SELECT 'tasks', 'khesht.chat.run', 'doing', id FROM worker
"""


@dataclass
class Queue:
    """A queue on which a worker has left a job and stood still, or died."""

    connection: psycopg.Connection
    stalled: Stalled

    def say(self, what: LiteralString) -> None:
        self.connection.execute(what)

    def status(self) -> str:
        row = self.connection.execute("SELECT status::text FROM procrastinate_jobs").fetchone()
        return row[0] if row else ""


@pytest.fixture
async def left(admin_dsn: str) -> AsyncIterator[Queue]:
    own = harness.new_database(admin_dsn, f"queue_{uuid.uuid4().hex[:8]}")
    url = postgres.service_dsn(own, "chat", harness.SECRET)
    app = queue.opened(url, connections=1)
    async with app.open_async():
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(JOB)
            yield Queue(connection, Stalled(app.job_manager))


async def test_the_job_of_a_dead_worker_is_given_to_another(left: Queue):
    for _ in range(3):
        await left.stalled.look()
    assert left.status() == "todo"


async def test_who_comes_back_lets_others_say_first_that_they_live(left: Queue):
    for _ in range(2):
        await left.stalled.look()
    left.say("UPDATE procrastinate_workers SET last_heartbeat = now()")
    await left.stalled.look()
    assert left.status() == "doing"
    left.say("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'")
    left.stalled.clock = lambda: now() + timedelta(minutes=5)
    await left.stalled.look()
    assert left.status() == "doing"


def test_what_was_tried_for_long_is_tried_again():
    job = Job(
        id=1,
        queue=queue.NAME,
        lock=None,
        queueing_lock=None,
        task_name=queue.TASK,
        attempts=2000,
    )
    error = errors.Unavailable("UNAVAILABLE", "the database does not answer")
    decision = Retry().get_retry_decision(exception=error, job=job)
    assert decision is not None
    assert decision.retry_at is not None
    assert decision.retry_at - now() < timedelta(minutes=2)
