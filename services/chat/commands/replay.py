"""What was written down of a generation, read again for those who are behind."""

from dataclasses import dataclass

from mesh.db import Database
from services.chat.domain.generation import Generation, Piece
from services.chat.domain.rows import unpack
from services.chat.store import generations

# Of up to 1 MiB each.
_MOST_SEGMENTS = 2


@dataclass(slots=True)
class Replay:
    """One per process."""

    database: Database

    async def earlier(self, generation: Generation, after: int) -> list[Piece]:
        """Some of the parts past place `after`, in order, or none if they were erased.

        Raises Unavailable.
        """
        base = generation.base
        segments = await self.database.run_one(
            lambda c: generations.next_segments(c, generation.id, base, after, most=_MOST_SEGMENTS)
        )
        pieces: list[Piece] = []
        for segment in segments:
            parts = unpack(segment.parts)
            known = after + len(pieces) - (segment.seq - len(parts))
            if known < 0:
                break
            pieces += parts[known:]
        return pieces
