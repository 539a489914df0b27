"""What `khesht audit` proves, and what it says of a ledger that somebody bent."""

import json
from dataclasses import asdict
from functools import partial
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from cli import topology
from cli.audit import CHECKS, audit
from mesh import migrations
from mesh.local import postgres
from mesh.local.errors import LocalError
from mesh.local.provision import provision
from services.usage.domain.ledger import Adjustment, Budget
from tests import harness
from tests.integration.usage.ledger import MONTH, NONE, balance_of, opened, record_of, wanted, wrong

USER, KEY, OTHER = uuid4(), uuid4(), uuid4()
SPENT, RESERVED, HELD, TWICE, RECORDED, PRICED, ALIVE = (check.promise for check in CHECKS)


@pytest.fixture(scope="module")
def own_dsn(admin_dsn):
    name = f"audit_{uuid4().hex}"
    yield harness.new_database(admin_dsn, name)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="module")
async def ended_and_running(own_dsn):
    """Two generations in a ledger that is right: one settled and adjusted, one that runs."""
    ended, running = wanted(USER, 10, KEY), wanted(USER, 20, KEY)
    async with opened(own_dsn) as ledger:
        await ledger.replace_budget(USER, Budget(monthly=100))
        await ledger.hold([(ended, NONE), (running, NONE)])
        await ledger.record([record_of(ended, 8)])
        await ledger.adjust(Adjustment(ended.generation_id, 1, -3, "less"))
        await ledger.record([record_of(wanted(OTHER, 0), 5)])
    return ended, running


def test_a_right_ledger_passes_and_every_check_was_made(own_dsn, ended_and_running):
    assert [(check, lines) for check, lines in audit(own_dsn)] == [(each, []) for each in CHECKS]


@pytest.mark.parametrize(
    ("bend", "promise", "lines"),
    [
        (
            f"UPDATE usage.balances SET spent = 6 WHERE scope_id = '{KEY}' AND period = 'total'",
            SPENT,
            [f"scope=key scope_id={KEY} period=total spent=6 due=5"],
        ),
        (
            f"DELETE FROM usage.balances WHERE scope_id = '{OTHER}' AND period = '{MONTH}'",
            SPENT,
            [f"scope=user scope_id={OTHER} period={MONTH} spent=None due=5"],
        ),
        (
            "DELETE FROM usage.usage_adjustments",
            SPENT,
            [
                f"scope={scope} scope_id={id} period={period} spent=5 due=8"
                for scope, id in (("key", KEY), ("user", USER))
                for period in (MONTH, "total")
            ],
        ),
        (
            f"UPDATE usage.balances SET reserved = 0 WHERE scope_id = '{USER}' AND period = 'total'",
            RESERVED,
            [f"scope=user scope_id={USER} period=total reserved=0 due=20"],
        ),
        (
            "DELETE FROM usage.holds",
            RESERVED,
            [
                f"scope={scope} scope_id={id} period={period} reserved=20 due=None"
                for scope, id in (("key", KEY), ("user", USER))
                for period in (MONTH, "total")
            ],
        ),
    ],
)
def test_what_was_bent_is_named(own_dsn, ended_and_running, bend, promise, lines):
    found = bent(own_dsn, bend)

    assert found == {check.promise: [] for check in CHECKS} | {promise: lines}
    assert wrong(own_dsn) == []


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ("completion_price = 499999", 5),
        ("completion_price = 500000", 6),
        ("cached_read_tokens = 1", 5),
        ("cached_read_tokens = 1, kind_prices = '{2000000, NULL, NULL, NULL, NULL}'", 2),
        ("cached_write_tokens = 1, kind_prices = '{NULL, 2000000, NULL, NULL, NULL}'", 2),
        ("reasoning_tokens = 1, kind_prices = '{NULL, NULL, 2000000, NULL, NULL}'", 7),
        ("audio_prompt_tokens = 1, kind_prices = '{NULL, NULL, NULL, 2000000, NULL}'", 2),
        ("audio_completion_tokens = 1, kind_prices = '{NULL, NULL, NULL, NULL, 2000000}'", 7),
    ],
)
def test_a_record_is_named_that_costs_another_sum_than_its_tokens(
    own_dsn, ended_and_running, change, due
):
    forged = f"UPDATE usage.usage_records SET {change} WHERE user_id = '{OTHER}'"
    lines = bent(own_dsn, forged)[PRICED]

    assert [line.split(" ", 1)[1] for line in lines] == [f"cost=5 due={due}"] * (due != 5)


def bent(dsn, statement):
    """What an audit says when `statement` was run; it is undone after that."""
    tables = ("usage_records", "usage_adjustments", "balances", "holds")
    with psycopg.connect(dsn) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE usage.kept_{table} AS TABLE usage.{table}")
        connection.execute(statement)
    try:
        return {check.promise: lines for check, lines in audit(dsn)}
    finally:
        with psycopg.connect(dsn) as connection:
            for table in reversed(tables):
                connection.execute(f"DELETE FROM usage.{table}")
            for table in tables:
                connection.execute(f"INSERT INTO usage.{table} TABLE usage.kept_{table}")
                connection.execute(f"DROP TABLE usage.kept_{table}")


@pytest.mark.parametrize(
    ("ended", "promise"),
    [
        ("'completed', 5, 7, 'provider', now()", RECORDED),
        ("'running', NULL, NULL, NULL, NULL", ALIVE),
    ],
)
def test_a_generation_without_its_record_or_its_process_is_named(
    own_dsn, ended_and_running, ended: str, promise: str
):
    forged = (
        "INSERT INTO chat.generations (id, caller_id, user_id, request_id, model, provider,"
        " prompt_price, completion_price, prompt_estimate, created_at,"
        " status, prompt_tokens, completion_tokens, basis, ended_at)"
        f" SELECT '{OTHER}', '{USER}', '{USER}', '', 'm', 'p', 0, 0, 1,"
        f" now() - interval '2 minutes', {ended}"
    )
    try:
        found = bent(own_dsn, forged)
    finally:
        with psycopg.connect(own_dsn) as connection:
            connection.execute("DELETE FROM chat.generations")
    (line,) = found.pop(promise)
    assert line.startswith(f"id={OTHER} ")
    assert set(map(tuple, found.values())) == {()}


async def test_a_hold_of_a_generation_that_was_settled_is_named(own_dsn, ended_and_running):
    _, running = ended_and_running
    forged = (
        "INSERT INTO usage.usage_records SELECT * FROM"
        " jsonb_populate_record((SELECT r FROM usage.usage_records r LIMIT 1),"
        f' \'{{"generation_id": "{running.generation_id}", "cost": 0, "prompt_price": 0}}\')'
    )
    (line,) = bent(own_dsn, forged)[HELD]

    assert line.startswith(f"generation_id={running.generation_id} amount=20 ")


def test_an_administrator_who_is_no_superuser_may_audit_and_is_left_as_he_was(admin_dsn):
    name = f"theirs_{uuid4().hex}"
    port = admin_dsn.rsplit("@", 1)[1].split("/")[0]
    url = f"postgresql://{name}:p@{port}/{name}"
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'p'")
        connection.execute(f"CREATE DATABASE {name} OWNER {name}")
        for service in topology.SERVICES:
            role = postgres.role(service)
            connection.execute(f"GRANT {role} TO {name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    provision(url, topology.SERVICES, harness.SECRET)
    for service in topology.SERVICES:
        own = postgres.service_dsn(url, service, harness.SECRET)
        migrations.upgrade(service, topology.migrations(service), own)

    for _ in range(2):
        assert wrong(url) == []

    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT * FROM usage.balances")
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_what_was_recorded_before_there_were_balances_counts_in_them(own_dsn, tmp_path):
    url = postgres.service_dsn(own_dsn, "usage", harness.SECRET)
    folder = topology.migrations("usage")
    for path in (*folder.glob("*.*"), *folder.glob("versions/0001_*")):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    with psycopg.connect(url) as connection:
        connection.execute(
            "DROP TABLE usage_adjustments, usage_records, balances, holds, budgets, alembic_version"
        )
    assert migrations.upgrade("usage", tmp_path, url) == ["0001"]
    with psycopg.connect(url) as connection:
        for key_id in (KEY, None):
            record = asdict(record_of(wanted(USER, 0, key_id), 7))
            connection.execute(
                "INSERT INTO usage_records"
                " SELECT * FROM jsonb_populate_record(NULL::usage_records, %s)",
                [Jsonb(record, partial(json.dumps, default=str))],
            )

    assert migrations.upgrade("usage", folder, url) == ["0002", "0003"]

    assert wrong(own_dsn) == []
    assert balance_of(own_dsn, KEY) == (7, 0)
    assert balance_of(own_dsn, USER) == (14, 0)


def test_a_database_without_the_tables_is_told_in_words(admin_dsn):
    with pytest.raises(LocalError, match=r"the ledger can't be read: relation .* does not exist"):
        list(audit(admin_dsn.rsplit("/", 1)[0] + "/postgres"))
