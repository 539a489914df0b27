"""What callers are told of their use."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from mesh import pages
from mesh.db import Database
from services.usage.domain.records import Record, Summary, Whose
from services.usage.store import records as store

_DAYS = 30
_PORTION = 1_000


class Usage:
    """The records of all accounts, read for one of them at a time."""

    def __init__(self, database: Database, tokens: pages.PageTokens) -> None:
        """Takes where records are kept, and what signs places in lists."""
        self._database = database
        self._tokens = tokens

    async def list(self, whose: Whose, page_size: int, page_token: str) -> tuple[list[Record], str]:
        """A page of records, and the token of the next or "". Raises InvalidRequest."""
        name, size = f"usage/{whose.user_id}/{whose.key_id}", pages.size(page_size)
        place = self._tokens.read(name, page_token)
        after = (datetime.fromisoformat(place[0]), UUID(place[1])) if place else None
        found = await self._database.run(
            lambda c: store.list_records(c, whose, after=after, limit=size + 1)
        )
        page = found[:size]
        if len(found) <= size:
            return page, ""
        return page, self._tokens.write(name, [page[-1].created_at, page[-1].generation_id])

    async def summarize(self, whose: Whose, days: int, group_by: str) -> Summary:
        """The totals of the last `days` until now; 0 means 30. `group_by` may be ""."""
        end = datetime.now(UTC)
        start = end - timedelta(days=days or _DAYS)

        async def read(connection: AsyncConnection) -> Summary:
            totals = await store.sum_records(connection, whose, start, end)
            if not group_by:
                return Summary(totals, {}, start, end)
            groups = await store.sum_groups(connection, whose, start, end, group_by)
            return Summary(totals, groups, start, end)

        return await self._database.run(read)

    async def export(self, whose: Whose, days: int) -> AsyncIterator[Sequence[Record]]:
        """The records of the last `days`, newest first, in portions; no transaction is held."""
        start = datetime.now(UTC) - timedelta(days=days or _DAYS)
        after: store.Place | None = None
        while True:
            portion = await self._portion(whose, start, after)
            if portion:
                yield portion
            if len(portion) < _PORTION:
                return
            after = (portion[-1].created_at, portion[-1].generation_id)

    async def _portion(
        self, whose: Whose, start: datetime, after: store.Place | None
    ) -> Sequence[Record]:
        return await self._database.run(
            lambda c: store.list_records(c, whose, after=after, limit=_PORTION, start=start)
        )
