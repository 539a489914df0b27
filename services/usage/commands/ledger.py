"""Holds money before generations, charges them after, and tells what may be spent."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import compress
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors
from mesh.db import Database
from services.usage.domain import ledger as domain
from services.usage.domain.ledger import (
    TOTAL,
    Adjustment,
    Balance,
    Budget,
    Hold,
    Outcome,
    Place,
    Standing,
    Verdict,
)
from services.usage.domain.records import Record
from services.usage.store import holds
from services.usage.store import ledger as store

_REAPED_AT_ONCE = 500

# A hold that is wanted, and the budget of its key.
Asked = tuple[Hold, Budget]
Budgets = Mapping[UUID, Budget]


class Ledger:
    """The money of all accounts and keys."""

    def __init__(self, database: Database) -> None:
        """Takes where it is kept."""
        self._database = database
        # A process decides one group at a time: several would wait for each other in the
        # database, on connections that others need, with locks that outlast round trips.
        self._turn = asyncio.Lock()

    async def hold(self, asked: Sequence[Asked]) -> list[Outcome]:
        """What became of each of `asked`, decided in their order.

        A budget that is changed meanwhile counts from the next call on.
        """
        users = {hold.user_id for hold, _ in asked}
        budgets = await self._database.run_one(lambda c: store.get_budgets(c, users))
        needed = [budget.is_set or hold.user_id in budgets for hold, budget in asked]
        if not any(needed):
            return [Outcome(Verdict.NOT_NEEDED)] * len(asked)
        async with self._turn:
            decided = iter(await self._hold(list(compress(asked, needed)), budgets))
        return [next(decided) if each else Outcome(Verdict.NOT_NEEDED) for each in needed]

    async def _hold(self, asked: Sequence[Asked], budgets: Budgets) -> list[Outcome]:
        found = await self._database.run(lambda c: _hold(c, asked, budgets))
        if isinstance(found, list):
            return found
        missing = found
        await self._database.run_one(lambda c: holds.open_balances(c, missing))
        return await self._hold(asked, budgets)

    async def check(self, asked: Sequence[tuple[UUID, Budget]]) -> list[Outcome]:
        """Whether what generations hold still fits, as budgets are now: the oldest first.

        Each comes with the budget of its key. SETTLED where there is no hold.
        """

        async def read(connection: AsyncConnection) -> list[Outcome]:
            there = await holds.read(connection, [generation_id for generation_id, _ in asked])
            users = {hold.user_id for hold in there.values()}
            budgets = await store.get_budgets(connection, users)
            places = {place for hold in there.values() for place in hold.places}
            balances = await holds.read_balances(connection, places)
            held = [
                (there[i], {"key": of_key, "user": budgets.get(there[i].user_id, Budget())})
                for i, of_key in asked
                if i in there
            ]
            outcomes = iter(domain.still_fit(held, balances))
            return [next(outcomes) if i in there else Outcome(Verdict.SETTLED) for i, _ in asked]

        return await self._database.run(read)

    async def renew(self, generation_ids: Sequence[UUID]) -> list[UUID]:
        """Those of the generations that have no hold; the others' is good for 60 seconds more."""
        renewed = await self._database.run_one(lambda c: holds.renew(c, generation_ids))
        return [each for each in generation_ids if each not in renewed]

    async def release(self, generation_ids: Sequence[UUID]) -> int:
        """How many of the generations had a hold, which is closed now."""
        _, closed = await self._database.run_one(lambda c: store.settle(c, [], generation_ids))
        return closed

    async def reap(self) -> int:
        """How many holds were over, and are closed now."""

        async def portion(connection: AsyncConnection) -> int:
            expired = await holds.lock_expired(connection, _REAPED_AT_ONCE)
            if expired:
                await store.settle(connection, [], expired)
            return len(expired)

        reaped = last = await self._database.run(portion)
        while last == _REAPED_AT_ONCE:
            last = await self._database.run(portion)
            reaped += last
        return reaped

    async def record(self, records: Sequence[Record]) -> int:
        """How many of `records` were new, and are charged now. All are stored, or none."""
        ended = [record.generation_id for record in records]
        added, _ = await self._database.run_one(lambda c: store.settle(c, records, ended))
        return added

    async def adjust(self, adjustment: Adjustment) -> None:
        """Corrects what a generation cost. Raises NotFound, AlreadyExists."""
        if await self._database.run_one(lambda c: store.adjust(c, adjustment)):
            return
        generation_id, seq = adjustment.generation_id, adjustment.seq
        known = await self._database.run_one(lambda c: store.get_adjustment(c, generation_id, seq))
        if known is None:
            raise errors.NotFound(
                "USAGE_RECORD_NOT_FOUND",
                f"no usage record of generation {generation_id}",
                metadata={"generation_id": str(generation_id)},
            )
        if known != adjustment:
            raise errors.AlreadyExists(
                "ADJUSTMENT_EXISTS",
                f"adjustment {seq} of generation {generation_id} is another one",
                metadata={"generation_id": str(generation_id), "seq": str(seq)},
            )

    async def standing(self, user_id: UUID) -> Standing:
        """What an account may spend, and what counts against it now."""
        month = domain.month_of(datetime.now(UTC))

        async def read(connection: AsyncConnection) -> Standing:
            budget = (await store.get_budgets(connection, [user_id])).get(user_id, Budget())
            period = budget.period(month)
            balance = await store.get_balance(connection, user_id, period)
            return Standing(budget, balance, None if period == TOTAL else domain.month_end(month))

        return await self._database.run(read)

    async def replace_budget(self, user_id: UUID, budget: Budget) -> Standing:
        """The same, after `budget` became the account's."""
        await self._database.run_one(lambda c: store.replace_budget(c, user_id, budget))
        return await self.standing(user_id)


async def _hold(
    connection: AsyncConnection, asked: Sequence[Asked], budgets: Budgets
) -> list[Outcome] | set[Place]:
    """What became of each of `asked`; or the balances to make first, and nothing is held."""
    there = await holds.claim(connection, [hold for hold, _ in asked])
    places = {place for hold in there.values() for place in hold.places}
    if not places:
        return [Outcome(Verdict.SETTLED)] * len(asked)
    balances, settled = await holds.lock(connection, places, there)
    if missing := places - balances.keys():
        return missing
    before, held = dict(balances), dict(there)
    for generation_id in settled:
        del there[generation_id]
    decided = [_decide(each, there, balances, budgets) for each in asked]
    raised = [hold for hold in there.values() if hold != held[hold.generation_id]]
    dropped = settled | {
        hold.generation_id
        for (hold, _), outcome in zip(asked, decided, strict=True)
        if outcome.verdict is Verdict.REFUSED and not there[hold.generation_id].amount
    }
    changed = {place: each for place, each in balances.items() if each != before[place]}
    if raised or dropped:
        await holds.reserve(connection, raised, dropped, changed)
    return decided


def _decide(
    asked: Asked, there: dict[UUID, Hold], balances: dict[Place, Balance], budgets: Budgets
) -> Outcome:
    """Decides one, and puts what it holds into `there` and `balances`."""
    wanted, of_key = asked
    hold = there.get(wanted.generation_id)
    if hold is None:
        return Outcome(Verdict.SETTLED)
    of_user = budgets.get(hold.user_id, Budget())
    outcome = domain.decide(hold, wanted, {"key": of_key, "user": of_user}, balances)
    if outcome.verdict is Verdict.HELD:
        more = outcome.amount - hold.amount
        there[hold.generation_id] = replace(hold, amount=outcome.amount)
        for place in hold.places:
            balance = balances[place]
            balances[place] = replace(balance, reserved=balance.reserved + more)
    return outcome
