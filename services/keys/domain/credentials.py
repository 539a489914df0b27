"""What a stored credential of a provider is."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

# How keys begin at the providers that khesht knows by name.
PREFIXES = {"openai": "sk-", "groq": "gsk_", "huggingface": "hf_"}
# They are told to every service that asks about a call.
MOST_PROVIDERS = 20
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Place:
    """Whose credential it is, of which provider, in which version: what it is bound to."""

    owner_id: UUID
    provider: str
    version: int


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential as stored: `sealed` is the provider's key, encrypted."""

    id: UUID
    owner_id: UUID
    provider: str
    version: int
    last_four: str
    sealed: bytes = field(repr=False)
    created_at: datetime

    @property
    def place(self) -> Place:
        """What `sealed` is bound to."""
        return Place(self.owner_id, self.provider, self.version)


def last_four(api_key: str) -> str:
    """The part of a provider's key that may be shown."""
    return api_key[-_SHOWN:]


def missing_prefix(provider: str, api_key: str) -> str | None:
    """How a key of `provider` would have to begin, if `api_key` does not."""
    prefix = PREFIXES.get(provider, "")
    return None if api_key.startswith(prefix) else prefix
