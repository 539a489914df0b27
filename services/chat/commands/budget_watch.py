"""Holds what runs to budgets that were lowered, or set, since it began."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from mesh import errors
from mesh.identity.principal import Budget
from services.chat.commands.budget import Budgets
from services.chat.commands.revocation import Revocation
from services.chat.commands.runner import Run, Runner

LOOK_EVERY_S = 1.0


@dataclass(slots=True)
class BudgetWatch:
    """One per process. Of keys it knows what `revocation` was told last."""

    runner: Runner
    budgets: Budgets
    revocation: Revocation

    async def look(self) -> None:
        """Ends what there is no money for any more, the newest first. Every second."""
        running = [run for run in self.runner.running.values() if run.is_asking]
        running.sort(key=lambda run: run.generation.origin.created_at)
        await self._check([run for run in running if run.hold is not None])
        await self._hold([run for run in running if run.hold is None])

    async def _check(self, held: Sequence[Run]) -> None:
        asked = [(run.hold, self._budget(run)) for run in held if run.hold is not None]
        for run, error in zip(held, await self.budgets.check(asked), strict=True):
            if error is not None:
                run.refuse(error)

    async def _hold(self, free: Sequence[Run]) -> None:
        """Looks for budgets where there were none."""
        of: dict[tuple[UUID, UUID | None], list[Run]] = {}
        for run in free:
            of.setdefault((run.spender.user_id, run.spender.key_id), []).append(run)
        await asyncio.gather(*map(self._hold_of, of.values()))

    async def _hold_of(self, runs: Sequence[Run]) -> None:
        """The same for those of one who pays: the first says whether there is a budget."""
        for run in runs:
            spender = replace(run.spender, budget=self._budget(run))
            try:
                run.hold = await run.hold_late(self.budgets, spender)
            except errors.ResourceExhausted as error:
                run.refuse(error)
                continue
            except errors.Unavailable:
                return
            if run.hold is None:
                return
            if not run.is_asking:  # It ended meanwhile, and who ended it knew of no hold.
                await self.budgets.release(run.hold)

    def _budget(self, run: Run) -> Budget | None:
        key_id = run.spender.key_id
        if key_id is None:
            return None
        return self.revocation.key_budgets.get(key_id, run.spender.budget)
