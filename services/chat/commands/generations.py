"""The caller's generations: read, followed and cancelled, wherever they run."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import errors, pages
from mesh.db import Database
from services.chat.commands.mirrors import Mirrors
from services.chat.commands.runner import Runner
from services.chat.domain.generation import CANCELLED, Generation
from services.chat.domain.rows import Row
from services.chat.store import generations

# A process that does not end a generation in this time is dead, or nearly.
_CANCELLED_WITHIN = 5.0


@dataclass(slots=True)
class Generations:
    """What ran, runs and waits, for one of its owners at a time."""

    database: Database
    runner: Runner
    mirrors: Mirrors
    tokens: pages.PageTokens

    async def page(
        self, user_id: UUID, wanted: Mapping[str, Any], page_size: int, page_token: str
    ) -> tuple[list[Row], str]:
        """A page, newest first, and the token of the next or "". Raises InvalidRequest."""
        name = "/".join(("generations", str(user_id), *(f"{k}={v}" for k, v in wanted.items())))
        size, place = pages.size(page_size), self.tokens.read(name, page_token)
        after = (datetime.fromisoformat(place[0]), UUID(place[1])) if place else None
        found = await self.database.run_one(
            lambda c: generations.list_newest(c, user_id, wanted, after=after, limit=size + 1)
        )
        page = found[:size]
        if len(found) <= size:
            return page, ""
        return page, self.tokens.write(name, [page[-1].created_at, page[-1].id])

    async def row(self, user_id: UUID, generation_id: UUID) -> Row:
        """What is written down of one. Raises NotFound."""
        row = await self.database.run_one(lambda c: generations.get(c, user_id, generation_id))
        if row is None:
            raise errors.NotFound("GENERATION_NOT_FOUND", "no such generation")
        return row

    async def get(self, user_id: UUID, generation_id: UUID) -> tuple[Row, Generation]:
        """One of them, and what came of it until now. Raises NotFound."""
        row = await self.row(user_id, generation_id)
        run = self.runner.running.get(generation_id)
        if run is not None and run.generation.ending is None:
            return row, run.generation
        whole = await self.mirrors.whole(row)
        if whole.ending is not None and row.ending is None:  # It has ended meanwhile.
            row = await self.row(user_id, generation_id)
        return row, whole

    @asynccontextmanager
    async def following(self, row: Row) -> AsyncIterator[Generation]:
        """The generation of `row`, kept up to date; leaving does not end it."""
        run = self.runner.running.get(row.id)
        if run is not None:
            yield run.generation
            return
        async with self.mirrors.following(row) as generation:
            yield generation

    async def cancel(self, user_id: UUID, generation_id: UUID) -> tuple[Row, Generation]:
        """Ends it wherever it runs, and waits for that. Raises NotFound, Unavailable."""
        row = await self.row(user_id, generation_id)
        ended_at = self.runner.clock()
        self.runner.cancel(generation_id)

        async def ask(connection: AsyncConnection) -> None:
            await generations.cancel_waiting(connection, row.id, CANCELLED, ended_at)
            await generations.ask_cancel(connection, row.id)

        if row.ending is None:
            await self.database.run(ask)
        async with self.following(row) as generation:
            try:
                await generation.ended(within=_CANCELLED_WITHIN)
            except TimeoutError:
                raise errors.Unavailable(
                    "CANCELLING", "the generation is being cancelled", retry_after=5
                ) from None
        return await self.get(user_id, generation_id)
