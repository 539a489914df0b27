"""Who a call is made for."""

from dataclasses import dataclass
from uuid import UUID

# Stands for whoever calls without a credential, where that is allowed.
ANONYMOUS_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, and the session or the API key by which it calls."""

    user_id: UUID
    role: str = "user"
    session_id: UUID | None = None
    key_id: UUID | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody in particular calls."""
        return self.user_id == ANONYMOUS_ID

    @property
    def is_key(self) -> bool:
        """Whether an API key calls, which may not manage keys or accounts."""
        return self.key_id is not None
