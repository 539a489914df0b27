"""What is said to a model, and how much of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from mesh import errors
from services.chat.domain.models import SystemRole

# Control characters, but for tab, newline and carriage return, which end lines in what people
# paste: no model needs them, and PostgreSQL can't hold U+0000.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LINE_END = re.compile(r"[\r\n]")
_TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation; `role` is system, developer, user or assistant."""

    role: str
    content: str


# Roles of what a model is told before all else.
SYSTEM_ROLES = frozenset({"system", "developer"})


def as_taken(turns: Sequence[Turn], role: SystemRole | None) -> Sequence[Turn]:
    """`turns` for a model that takes what it is told before all else by this role.

    Without any, it is said in front of what the user says next.
    """
    if role is None:
        return turns
    taken: list[Turn] = []
    before: list[str] = []
    for turn in turns:
        if turn.role in SYSTEM_ROLES and role is not SystemRole.NONE:
            taken.append(Turn(role, turn.content))
        elif turn.role in SYSTEM_ROLES:
            before.append(turn.content)
        elif before and turn.role == "user":
            taken.append(Turn("user", "\n\n".join((*before, turn.content))))
            before = []
        else:
            taken.append(turn)
    return [*taken, Turn("user", "\n\n".join(before))] if before else taken


@dataclass(frozen=True, slots=True)
class Fields:
    """What the caller calls the parts of an Ask."""

    message: str = "message"
    turns: str = "messages"
    system_prompt: str = "system_prompt"


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller wants: `message` in a chat, whole `turns`, or `message` after `turns`."""

    message: str
    turns: tuple[Turn, ...]
    system_prompt: str
    chat_id: UUID | None
    model: str
    max_tokens: int | None
    temperature: float | None
    store: bool | None
    key: str | None = None
    # Whether the oldest turns may be left out where its model has no room for all.
    truncates: bool = True
    fields: Fields = Fields()

    @property
    def stored(self) -> bool:
        """Whether the turn is kept: unless told, a message is and whole turns are not."""
        return self.store if self.store is not None else bool(self.message)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request is to be treated, whatever it asks.

    `request_id` is the edge's. `dedup_key` is the caller's own name for it, by which
    it may be repeated, and `dedup_body` a digest of what is asked. Where it `lasts`,
    the generation outlives its reader.
    """

    request_id: str
    dedup_key: str | None = None
    dedup_body: bytes | None = None
    lasts: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may be said: characters of one turn, and turns of a conversation."""

    message: int
    history: int

    def cleaned(self, text: str, field: str) -> str:
        """`text` as models get it. Raises InvalidRequest that names `field`."""
        if len(text) > self.message:
            raise errors.invalid(
                field,
                f"{len(text)} characters; {self.message} are allowed",
                reason="MESSAGE_TOO_LONG",
            )
        return _CONTROL.sub("", text)

    def cleaned_turns(self, turns: tuple[Turn, ...], field: str) -> tuple[Turn, ...]:
        """`turns` as models get them. Raises InvalidRequest that names `field` or a part of it."""
        if len(turns) > self.history:
            raise errors.invalid(
                field,
                f"{len(turns)} turns; {self.history} are allowed",
                reason="MESSAGE_TOO_LONG",
            )
        return tuple(
            Turn(turn.role, self.cleaned(turn.content, f"{field}[{at}].content"))
            for at, turn in enumerate(turns)
        )


def title_of(message: str) -> str:
    """What a chat is called that starts with `message`: the start of its first line."""
    line = _LINE_END.split(message.strip(), 1)[0].replace("\t", " ").strip()
    if len(line) <= _TITLE_LENGTH:
        return line or "New chat"
    return line[: _TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"
