"""The ledger under many at once: no budget overshot, nothing charged twice, nobody stuck."""

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from services.usage.domain.ledger import TOTAL, Budget, Place, Verdict
from tests import harness
from tests.integration.usage.ledger import (
    MONTH,
    NONE,
    balance_of,
    balances_of,
    expire,
    opened,
    record_of,
    several,
    wanted,
    wrong,
)
from tests.support import eventually


@pytest.mark.parametrize("connections", [1, 2, 50])
@pytest.mark.parametrize("of", ["key", "user"])
async def test_200_race_for_room_for_10_and_10_get_it(admin_dsn, connections, of):
    user_id, key_id = uuid4(), uuid4()
    of_key = Budget(monthly=109) if of == "key" else NONE
    async with several(admin_dsn, connections) as ledgers:
        await ledgers[0].replace_budget(user_id, Budget(total=109) if of == "user" else NONE)
        racing = (
            ledgers[at % connections].hold([(wanted(user_id, 10, key_id), of_key)])
            for at in range(200)
        )
        outcomes = [outcome for (outcome,) in await asyncio.gather(*racing)]

    verdicts = [outcome.verdict for outcome in outcomes]
    assert verdicts.count(Verdict.HELD) == 10
    assert verdicts.count(Verdict.REFUSED) == 190
    assert balance_of(admin_dsn, user_id) == balance_of(admin_dsn, key_id, TOTAL) == (0, 100)
    assert wrong(admin_dsn) == []


@pytest.mark.parametrize("connections", [1, 2, 50])
async def test_racing_extensions_overshoot_nothing(admin_dsn, connections):
    user_id = uuid4()
    held = [wanted(user_id, 1) for _ in range(50)]
    async with several(admin_dsn, connections) as ledgers:
        await ledgers[0].replace_budget(user_id, Budget(monthly=95))
        await ledgers[0].hold([(hold, NONE) for hold in held])
        racing = (
            ledgers[at % connections].hold([(replace(hold, amount=10), NONE)])
            for at, hold in enumerate(held)
        )
        outcomes = [outcome for (outcome,) in await asyncio.gather(*racing)]

    assert [outcome.verdict for outcome in outcomes].count(Verdict.HELD) == 5
    assert balance_of(admin_dsn, user_id) == (0, 50 + 5 * 9)
    assert wrong(admin_dsn) == []


async def test_twins_of_a_hold_hold_once(admin_dsn):
    user_id = uuid4()
    hold = wanted(user_id, 10)
    async with several(admin_dsn, 50) as ledgers:
        await ledgers[0].replace_budget(user_id, Budget(monthly=10))
        racing = (ledger.hold([(hold, NONE)]) for ledger in ledgers * 2)
        outcomes = [outcome for (outcome,) in await asyncio.gather(*racing)]

    assert {outcome.verdict for outcome in outcomes} == {Verdict.HELD}
    assert balance_of(admin_dsn, user_id) == (0, 10)


async def test_50_settle_10_holds_and_10_take_effect(admin_dsn):
    user_id, key_id = uuid4(), uuid4()
    held = [wanted(user_id, 10, key_id) for _ in range(10)]
    records = [record_of(hold, 7) for hold in held]
    async with opened(admin_dsn, 50) as ledger:
        await ledger.replace_budget(user_id, Budget(monthly=1000))
        await ledger.hold([(hold, NONE) for hold in held])
        assert balance_of(admin_dsn, user_id) == (0, 100)
        # Alone, overlapping, in other orders, and beside who gives the same holds back.
        batches = [[each] for each in records] * 2
        batches += [random.sample(records, 5) for _ in range(25)]
        racing = [ledger.record(batch) for batch in batches]
        racing += [ledger.release([each.generation_id for each in held]) for _ in range(5)]
        random.shuffle(racing)
        await asyncio.gather(*racing)

    every = dict.fromkeys(held[0].places, (70, 0))
    assert balances_of(admin_dsn, user_id, key_id) == every
    assert wrong(admin_dsn) == []


@pytest.fixture
def own_dsn(admin_dsn):
    """A database of the test's own, which counts its own deadlocks."""
    name = f"races_{uuid4().hex}"
    yield harness.new_database(admin_dsn, name)
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


async def deadlocks(dsn):
    """Those that PostgreSQL has found in a database that nobody uses any more."""
    # Within one transaction both views would show one moment.
    with psycopg.connect(dsn, autocommit=True) as connection:

        def nobody():
            query = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend'"
            )
            return connection.execute(query).fetchone() == (1,)

        await eventually(nobody)
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return connection.execute(query).fetchone()[0]


async def test_random_orders_never_deadlock(own_dsn):
    users = [uuid4() for _ in range(4)]
    keys = {key_id: user_id for user_id in users for key_id in (uuid4(), uuid4())}
    months = ("2026-01", "2026-02", MONTH)
    roomy = Budget(monthly=10**9, total=10**9)
    chance = random.Random(4)

    def some(count):
        for _ in range(count):
            key_id = chance.choice(list(keys))
            month = chance.choice(months)
            yield wanted(keys[key_id], 10, key_id, month)

    async def lives(ledger, held):
        await ledger.hold([(hold, roomy) for hold in held])
        await ledger.renew([hold.generation_id for hold in chance.sample(held, 5)])
        ended, extended, released = held[:8], held[2:], held[:2]
        await asyncio.gather(
            ledger.record([record_of(hold, 3) for hold in shuffled(ended)]),
            ledger.record([record_of(hold, 3) for hold in shuffled(ended)]),
            ledger.hold([(replace(hold, amount=15), roomy) for hold in shuffled(extended)]),
            ledger.release([hold.generation_id for hold in released]),
            ledger.reap(),
        )

    def shuffled(held):
        return chance.sample(held, len(held))

    async with several(own_dsn, 20) as ledgers:
        for _ in range(5):
            await asyncio.gather(*(lives(ledger, list(some(10))) for ledger in ledgers))

    assert await deadlocks(own_dsn) == 0
    assert wrong(own_dsn) == []


async def test_the_count_of_deadlocks_would_show_one(own_dsn):
    rows = [(uuid4(), uuid4()) for _ in range(2)]
    update = "UPDATE usage.budgets SET monthly = 1 WHERE user_id = %s"
    async with (
        await psycopg.AsyncConnection.connect(own_dsn) as one,
        await psycopg.AsyncConnection.connect(own_dsn) as other,
    ):
        for user_id, _ in rows:
            await one.execute("INSERT INTO usage.budgets (user_id) VALUES (%s)", [user_id])
        await one.commit()
        await one.execute(update, [rows[0][0]])
        await other.execute(update, [rows[1][0]])
        crossed = (one.execute(update, [rows[1][0]]), other.execute(update, [rows[0][0]]))
        ended = await asyncio.gather(*crossed, return_exceptions=True)

    assert sum(isinstance(each, psycopg.errors.DeadlockDetected) for each in ended) == 1
    assert await deadlocks(own_dsn) == 1


async def test_two_who_reap_give_each_hold_back_once(admin_dsn):
    user_id = uuid4()
    dead = [wanted(user_id, 10) for _ in range(300)]
    living = wanted(user_id, 10)
    async with opened(admin_dsn) as one, opened(admin_dsn) as other:
        await one.replace_budget(user_id, Budget(monthly=10**6))
        await one.hold([(hold, NONE) for hold in (*dead, living)])
        expire(admin_dsn, *dead)
        await asyncio.gather(*(ledger.reap() for ledger in (one, other) for _ in range(5)))
        assert balance_of(admin_dsn, user_id) == (0, 10)
        await one.release([living.generation_id])

    assert wrong(admin_dsn) == []


@pytest.mark.parametrize("seed", range(5))
async def test_after_any_history_balances_are_what_can_be_computed(own_dsn, seed):
    chance = random.Random(seed)
    user_id, keys = uuid4(), [uuid4(), uuid4(), None]
    limits = {"user": 2_000, "key": 900}
    months = {
        "2026-01": datetime(2026, 1, 31, tzinfo=UTC),
        "2026-02": datetime(2026, 2, 1, tzinfo=UTC),
    }
    known, costs, held = {}, {}, {}

    async def hold(ledger):
        if known and chance.random() < 0.4:
            asked = replace(chance.choice(list(known.values())), amount=chance.randrange(200))
        else:
            asked = wanted(
                user_id, chance.randrange(100), chance.choice(keys), chance.choice(list(months))
            )
        of_key = Budget(monthly=limits["key"])
        (outcome,) = await ledger.hold([(asked, of_key)])
        known[asked.generation_id] = asked
        if outcome.verdict is Verdict.HELD:
            before = held.get(asked.generation_id, 0)
            held[asked.generation_id] = max(before, asked.amount)
        assert (outcome.verdict is Verdict.SETTLED) == (asked.generation_id in costs)

    async def settle(ledger):
        ended = chance.sample(list(known.values()), min(len(known), 4))
        told = [
            record_of(
                each, chance.randrange(held.get(each.generation_id, 0) + 1), months[each.month]
            )
            for each in ended
        ]
        assert await ledger.record(told) == sum(each.generation_id not in costs for each in told)
        for each in told:
            costs.setdefault(each.generation_id, each.cost)
            held.pop(each.generation_id, None)

    async def release(ledger):
        ended = chance.sample(list(known), min(len(known), 2))
        await ledger.release(ended)
        for each in ended:
            held.pop(each, None)

    async with opened(own_dsn) as ledger:
        await ledger.replace_budget(user_id, Budget(total=limits["user"]))
        for _ in range(200):
            await chance.choice([hold, hold, hold, settle, release])(ledger)

    due = {}
    for generation_id, asked in known.items():
        for place in asked.places:
            spent, reserved = due.get(place, (0, 0))
            due[place] = (
                spent + costs.get(generation_id, 0),
                reserved + held.get(generation_id, 0),
            )
    found = balances_of(own_dsn, user_id, *keys[:2])
    assert {place: each for place, each in found.items() if any(each)} == {
        place: each for place, each in due.items() if any(each)
    }
    assert sum(found[Place("user", user_id, TOTAL)]) <= limits["user"]
    assert all(
        sum(each) <= limits["key"]
        for place, each in found.items()
        if place.scope == "key" and place.period != TOTAL
    )
    assert wrong(own_dsn) == []
