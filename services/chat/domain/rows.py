"""Generations as they are written down: opened, in segments while they run, and closed."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import msgspec

from mesh import errors
from services.chat.domain.generation import CANCELLED, Ending, Origin, Piece, Status
from services.chat.domain.models import Model
from services.chat.domain.records import Exchange, Message, Question
from services.chat.domain.tokens import Basis, TokenKinds, Tokens


@dataclass(frozen=True, slots=True)
class Opening:
    """A generation as it is written down before its provider is asked anything.

    Prices are nano-USD for a million tokens, `kind_prices` those of kinds as JSON.
    `prompt_estimate` is in tokens, about. `question` and `prompt` are JSON: what to keep in a chat, and
    what a worker asks of the provider.
    """

    id: UUID
    caller_id: UUID
    user_id: UUID
    key_id: UUID | None
    request_id: str
    chat_id: UUID | None
    model: str
    provider: str
    prompt_price: int
    completion_price: int
    kind_prices: str | None
    prompt_estimate: int
    status: str
    runner_id: UUID | None
    created_at: datetime
    question: str | None = None
    prompt: str | None = None
    # The caller's name for the request, which two of the same caller can't share,
    # and a digest of what was asked.
    dedup_key: str | None = None
    dedup_body: bytes | None = None
    # Of a task: lower ones are run first.
    turn: int | None = None

    @property
    def origin(self) -> Origin:
        """Who asked."""
        return Origin(self.user_id, self.key_id, self.request_id, self.created_at, self.chat_id)

    def run_by(self, runner_id: UUID) -> "Opening":
        """The same as one that runs in a process, and waits for none."""
        return replace(self, status=Status.RUNNING, runner_id=runner_id)

    def answered_by(self, model: Model) -> "Opening":
        """The same, at the prices of the model that really answers."""
        return replace(
            self,
            model=model.id,
            provider=model.provider,
            prompt_price=model.prompt_price,
            completion_price=model.completion_price,
            kind_prices=model.kind_prices.encode(),
        )


class Failure(msgspec.Struct, frozen=True):
    """An error, written down."""

    status: str
    reason: str
    message: str
    metadata: dict[str, str] = {}
    retry_after: float | None = None

    @classmethod
    def of(cls, error: errors.MeshError) -> "Failure":
        """`error`, to be written down."""
        return cls(error.status, error.reason, error.message, error.metadata, error.retry_after)

    def error(self) -> errors.MeshError:
        """The error again."""
        kind, reason = _KINDS.get(self.status), self.reason
        if kind is None:
            return errors.invalid("", self.message, reason=reason)
        return kind(reason, self.message, metadata=self.metadata, retry_after=self.retry_after)


_KINDS: dict[str, type[errors.MeshError]] = {
    kind.status: kind
    for kind in (
        errors.MeshError,
        errors.FailedPrecondition,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.DeadlineExceeded,
    )
}


@dataclass(frozen=True, slots=True)
class Row:
    """A generation as it is written down, whatever became of it."""

    id: UUID
    user_id: UUID
    key_id: UUID | None
    request_id: str
    chat_id: UUID | None
    model: str
    provider: str
    status: str
    reason: str | None
    answered_by: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    token_kinds: str | None
    basis: str | None
    error: str | None
    warning: str | None
    base: int
    tail: bytes | None
    created_at: datetime
    ended_at: datetime | None
    dedup_body: bytes | None

    @property
    def origin(self) -> Origin:
        """Who asked."""
        return Origin(self.user_id, self.key_id, self.request_id, self.created_at, self.chat_id)

    @property
    def ending(self) -> Ending | None:
        """How it ended, if it has."""
        status = Status(self.status)
        if not status.is_over:
            return None
        failure = msgspec.json.decode(self.error, type=Failure) if self.error else None
        return Ending(
            status,
            self.reason or "",
            self.answered_by or self.model,
            self.finish_reason or "",
            Tokens(
                self.prompt_tokens or 0,
                self.completion_tokens or 0,
                Basis(self.basis or Basis.ESTIMATED),
                TokenKinds.decode(self.token_kinds),
            ),
            failure.error() if failure else None,
        )


@dataclass(frozen=True, slots=True)
class Consumption:
    """What one generation used. Prices are nano-USD for a million tokens; kinds are JSON."""

    id: UUID
    request_id: str
    user_id: UUID
    key_id: UUID | None
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    prompt_price: int
    completion_price: int
    status: str
    basis: str
    latency_ms: int
    created_at: datetime
    token_kinds: str | None = None
    kind_prices: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Parts of a running generation; `seq` is the place of the last, `pieces` their tokens.

    They count unless the generation was begun anew, past another `base`.
    """

    generation_id: UUID
    seq: int
    base: int
    pieces: int
    parts: bytes


@dataclass(frozen=True, slots=True)
class Closing:
    """A generation as it is written down when it has ended, by the process that ran it.

    `owed` says whether usage has to be told; without, no provider was asked and there is
    no `basis`. `tail` says where segments end, and holds the parts after. `dedup_key` is kept unless a repeat is to ask anew.
    """

    id: UUID
    runner_id: UUID | None
    status: str
    reason: str | None
    model: str
    provider: str
    prompt_price: int
    completion_price: int
    kind_prices: str | None
    answered_by: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    token_kinds: str | None
    basis: str | None
    error: str | None
    warning: str | None
    tail: bytes
    latency_ms: int
    ended_at: datetime
    owed: bool
    dedup_key: str | None


def closing(
    opening: Opening,
    ending: Ending,
    tail: bytes,
    *,
    ended_at: datetime,
    latency_ms: int,
    reached: bool = True,
    warning: str = "",
) -> Closing:
    """How `opening` is closed, of which a provider was asked where `reached`."""
    error = ending.error
    # What broke off may be asked for again; what somebody ended may not.
    settled = ending.status is Status.COMPLETED or ending.reason == CANCELLED
    return Closing(
        id=opening.id,
        runner_id=opening.runner_id,
        status=ending.status,
        reason=ending.reason or None,
        model=opening.model,
        provider=opening.provider,
        prompt_price=opening.prompt_price,
        completion_price=opening.completion_price,
        kind_prices=opening.kind_prices,
        answered_by=ending.model,
        finish_reason=ending.finish_reason,
        prompt_tokens=ending.tokens.prompt,
        completion_tokens=ending.tokens.completion,
        token_kinds=ending.tokens.kinds.encode(),
        basis=ending.tokens.basis if reached else None,
        error=msgspec.json.encode(Failure.of(error)).decode() if error else None,
        warning=warning or None,
        tail=tail,
        latency_ms=latency_ms,
        ended_at=ended_at,
        owed=reached,
        dedup_key=opening.dedup_key if settled else None,
    )


def consumption(opening: Opening, closed: Closing) -> Consumption:
    """What usage is told."""
    return Consumption(
        id=opening.id,
        request_id=opening.request_id,
        user_id=opening.user_id,
        key_id=opening.key_id,
        model=closed.model,
        provider=closed.provider,
        prompt_tokens=closed.prompt_tokens,
        completion_tokens=closed.completion_tokens,
        prompt_price=closed.prompt_price,
        completion_price=closed.completion_price,
        token_kinds=closed.token_kinds,
        kind_prices=closed.kind_prices,
        status=closed.status,
        basis=closed.basis or Basis.ESTIMATED,
        latency_ms=closed.latency_ms,
        created_at=opening.created_at,
    )


def exchange(opening: Opening, closed: Closing, text: str) -> Exchange | None:
    """What stays of it in a chat, if anything.

    A question without any reply does not: its caller will ask again.
    """
    if opening.question is None or opening.chat_id is None:
        return None
    if not text and closed.status != Status.COMPLETED:
        return None
    question = msgspec.json.decode(opening.question, type=Question)
    reply = Message(
        opening.id, opening.chat_id, "assistant", text, closed.ended_at, closed.finish_reason
    )
    return question.answered(opening.origin, reply)


_pieces = msgspec.msgpack.Decoder(list[Piece])


def pack(pieces: list[Piece]) -> bytes:
    """Parts as they are written down."""
    return msgspec.msgpack.encode(pieces)


def unpack(parts: bytes) -> list[Piece]:
    """Parts that were written down."""
    return _pieces.decode(parts)


_tails = msgspec.msgpack.Decoder(tuple[int, list[Piece]])


def pack_tail(after: int, pieces: list[Piece]) -> bytes:
    """Last parts as they are written down, and the place after which they are.

    A segment may reach past it: its writing had no answer, or came after the ending.
    """
    return msgspec.msgpack.encode((after, pieces))


def unpack_tail(tail: bytes) -> tuple[int, list[Piece]]:
    """The place that was written down, and the parts after it."""
    return _tails.decode(tail)
