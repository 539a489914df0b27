"""Who a call is made for."""

from dataclasses import dataclass, field
from uuid import UUID

# Stands for whoever calls without a credential, where that is allowed.
ANONYMOUS_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Budget:
    """What an API key may spend, in nano-USD: in a calendar month (UTC), and ever.

    From `soft` in a month its owner is to be warned. None is no limit.
    """

    monthly: int | None = None
    total: int | None = None
    soft: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """An account, and the session or the API key by which it calls.

    Where `token_limit` is set, keys counts tokens a minute and has to be told of those
    used (SpendTokens). Where `allowed_models` has any, only those, by id or alias, may
    answer. `credential_providers` are those for which the account has stored
    a key of its own; they are known in calls to models only.
    """

    user_id: UUID
    role: str = "user"
    session_id: UUID | None = None
    key_id: UUID | None = None
    # Which of the key's secrets was sent, for keys to know.
    secret_id: str = field(default="", compare=False)
    budget: Budget | None = None
    token_limit: int | None = None
    allowed_models: frozenset[str] = frozenset()
    credential_providers: frozenset[str] = frozenset()

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody in particular calls."""
        return self.user_id == ANONYMOUS_ID

    @property
    def is_key(self) -> bool:
        """Whether an API key calls, which may not manage keys or accounts."""
        return self.key_id is not None
