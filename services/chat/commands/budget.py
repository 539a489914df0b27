"""Money that usage holds for a generation while it runs (temporary)."""

from dataclasses import dataclass
from uuid import UUID

from services.chat.domain.models import Model
from services.chat.domain.provider import Prompt, Relay


@dataclass(frozen=True, slots=True)
class Spender:
    """Who pays."""

    user_id: UUID
    key_id: UUID | None


@dataclass(slots=True)
class Hold:
    """Temporary."""

    generation_id: UUID
    covers: int
    soft_exceeded: bool = False


@dataclass(slots=True)
class Budgets:
    """Temporary."""

    async def hold(
        self, generation_id: UUID, spender: Spender, model: Model, prompt: Prompt | Relay
    ) -> Hold | None:
        """Temporary."""
        return None

    async def extend(self, hold: Hold, written: int) -> None:
        """Temporary."""

    async def release(self, hold: Hold) -> None:
        """Temporary."""
