"""Last uses, gathered in memory."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from mesh.errors import Unavailable
from services.keys.last_used import LastUsed

ONE, TWO = UUID(int=1), UUID(int=2)
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


async def test_the_latest_uses_are_written_together_and_once():
    written = []

    async def write(used_at):
        written.append(dict(used_at))

    uses = LastUsed(write)
    for key_id, now in ((ONE, EARLY), (TWO, EARLY), (ONE, LATE)):
        uses.note(key_id, now)
    await uses.flush()
    await uses.flush()

    assert written == [{ONE: LATE, TWO: EARLY}]


async def test_what_could_not_be_written_is_written_next_time():
    written = []

    async def write(used_at):
        if not written:
            written.append("nothing")
            uses.note(ONE, LATE)
            raise Unavailable("UNAVAILABLE", "no database")
        written.append(dict(used_at))

    uses = LastUsed(write)
    uses.note(ONE, EARLY)
    uses.note(TWO, EARLY)
    with pytest.raises(Unavailable):
        await uses.flush()
    await uses.flush()

    assert written == ["nothing", {ONE: LATE, TWO: EARLY}]
