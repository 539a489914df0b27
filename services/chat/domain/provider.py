"""What a provider of models is, whatever it is spoken to by."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from mesh import errors
from mesh.time_limits import LONGEST_ANSWER_S
from services.chat.domain import history, prompt_size
from services.chat.domain.completion import Completion
from services.chat.domain.conversation import SYSTEM_ROLES, Turn, as_taken
from services.chat.domain.models import (
    AS_ITS_PROVIDER,
    TAKES_ALL,
    Model,
    ModelTimeouts,
    OutputLimit,
    Takes,
)
from services.chat.domain.prompt_size import PromptSize
from services.chat.domain.tokens import Tokens

# For how long a model that thinks may say nothing, where nobody said so.
_THOUGHT_S = 600.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, until an answer begins, between two parts of it, and for all of it."""

    connect: float = 3.0
    first_byte: float = 30.0
    idle: float = 30.0
    total: float = 570.0

    def of(self, model: ModelTimeouts) -> "Timeouts":
        """The same, where `model` does not say it."""
        if model == AS_ITS_PROVIDER:
            return self
        own = self
        if model.thinks:
            silence = max(self.first_byte, _THOUGHT_S), max(self.idle, _THOUGHT_S)
            own = Timeouts(self.connect, *silence, max(self.total, LONGEST_ANSWER_S))
        return Timeouts(
            self.connect,
            model.first_byte or own.first_byte,
            model.idle or own.idle,
            model.total or own.total,
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is asked of a provider.

    At most `concurrency` calls at once; a call that it did nothing with is repeated
    up to `retries` times. After `breaker_failures` in a row it is left alone for
    `breaker_pause` seconds.
    """

    concurrency: int = 1_000
    retries: int = 1
    breaker_failures: int = 5
    breaker_pause: float = 10.0


@dataclass(frozen=True, slots=True)
class Account:
    """Where a provider is, our key there ("" for none), how its keys begin, and how it is used.

    `private` says that its name may stand for an address in a private network. Its key goes as a
    bearer token, or by itself in the header `key_header`; `query` goes with every call.
    """

    name: str
    url: str
    key: str = field(repr=False)
    key_prefix: str = ""
    needs_key: bool = True
    private: bool = False
    timeouts: Timeouts = Timeouts()
    bounds: Bounds = Bounds()
    key_header: str = ""
    query: tuple[tuple[str, str], ...] = ()

    @property
    def usable(self) -> bool:
        """Whether it can be called without a caller's own key."""
        return bool(self.key) or not self.needs_key


class Unreached(errors.MeshError):
    """No provider got the prompt: nothing was used anywhere."""


class Unreachable(Unreached, errors.Unavailable):
    """The provider can't be reached, or is not asked now."""


class UnreachedInTime(Unreached, errors.DeadlineExceeded):
    """The provider did not take the connection in time."""


class Declined(errors.MeshError):
    """The provider answered nothing of the prompt, and may do so a moment later."""


class DeclinedForNow(Declined, errors.Unavailable):
    """The provider failed, or closed the connection without an answer."""


class QuotaSpent(errors.ResourceExhausted):
    """The provider answers no more calls by this key; how long that lasts is not known."""


class RateLimited(Declined, QuotaSpent):
    """The provider has had as many calls by this key as it takes for now."""


def too_large(provider: str) -> errors.FailedPrecondition:
    """The error of a reply that grew longer than any may be."""
    return errors.FailedPrecondition(
        "REPLY_TOO_LARGE",
        f"{provider} wrote more than a reply may have; what came until then is kept",
        metadata={"provider": provider},
    )


# The caller's own key of the provider, used for one call and kept nowhere.
OwnKey = str | None


# Beyond what a provider counted, for turns that are cut anew.
_SURER = 1.05
# Of a reply whose model's window nobody knows.
_MAX_UNKNOWN_REPLY_TOKENS = 4_096


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a provider is asked. `max_tokens` is always sent, so that costs are bounded.

    Where `allowed` has any, only models of these ids or aliases may stand in. What its model does
    not take, as `takes` says, is left out of the request. Where it `truncates`, its oldest turns
    give way to a model's context window; so many turns were `left_out`.
    """

    model: str
    turns: tuple[Turn, ...]
    max_tokens: int
    temperature: float | None
    key: OwnKey = field(default=None, repr=False)
    allowed: frozenset[str] = frozenset()
    takes: Takes = TAKES_ALL
    timeouts: ModelTimeouts = AS_ITS_PROVIDER
    truncates: bool = True
    left_out: int = 0

    @property
    def size(self) -> PromptSize:
        """Tokens to read."""
        return prompt_size.of_turns(self.turns)

    @property
    def bound(self) -> int:
        """Tokens to read, at most."""
        return prompt_size.bound_of_turns(self.turns)

    @property
    def choices(self) -> int:
        """How many replies are wanted."""
        return 1

    @property
    def sounds(self) -> bool:
        """Whether some of it, or of the reply, may be sound."""
        return False

    def limit(self, most: int) -> int:
        """Tokens to write, at most, of a choice, by a model that writes no more than `most`."""
        return min(self.max_tokens, most)

    @property
    def whole(self) -> bool:
        """Whether the provider says nothing before it has all of its answer."""
        return False

    def limited(self, most: int) -> "Prompt":
        """The same, to be answered with no more than `most` tokens a choice."""
        return replace(self, max_tokens=min(self.max_tokens, most))

    def to(self, model: Model) -> "Prompt":
        """The same, to be asked of `model`."""
        made = replace(
            self,
            model=model.upstream or model.id,
            max_tokens=min(self.max_tokens, model.max_output_tokens),
            takes=model.takes,
            timeouts=model.timeouts,
        )
        return made if model.context_window is None else made.fitting(model.context_window)

    def fitting(self, window: int, margin: float = history.MARGIN) -> "Prompt":
        """The same, as far as it goes into a window of so many tokens."""
        if not self.truncates:
            return self
        fit = history.fit(self.turns, self.max_tokens, window, margin)
        left_out = self.left_out + len(self.turns) - len(fit.turns)
        return replace(self, turns=fit.turns, max_tokens=fit.max_tokens, left_out=left_out)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that are sent."""
        return frozenset(turn.role for turn in as_taken(self.turns, self.takes.system_role))

    @property
    def added(self) -> frozenset[str]:
        """What of `Takes` decides about this request."""
        system = any(turn.role in SYSTEM_ROLES for turn in self.turns)
        return frozenset(
            name
            for name, there in (
                ("output_limit", True),
                ("stream_options", True),
                ("temperature", self.temperature is not None),
                ("system_role", system),
            )
            if there
        )

    def taken(self, takes: Takes) -> "Prompt":
        """The same, to a model that takes this."""
        return replace(self, takes=takes)

    def cut(self, length: history.ContextLength) -> "Prompt":
        """The same, after a provider found it too long; with fewer turns or tokens, or unchanged.

        Where it says nothing of its window, half of the prompt is left out.
        """
        tokens, reply = max(self.size.tokens, 1), min(self.max_tokens, _MAX_UNKNOWN_REPLY_TOKENS)
        margin = history.MARGIN
        if length.counted:
            margin = _SURER * length.counted / tokens
        if length.window:
            made = self.fitting(length.window, margin)
            if (made.turns, made.max_tokens) != (self.turns, self.max_tokens):
                return made
        half = replace(self, max_tokens=reply)
        return half.fitting(int(tokens * margin / 2) + reply, margin)


# What asks for sound in a reply.
_OF_SOUND = ("audio", "modalities")


@dataclass(frozen=True, slots=True)
class Relay:
    """A request in OpenAI's format, to be passed on and answered byte by byte.

    It is sent as it came, unless `most` limits the tokens of a choice. `allowed` is as of a
    Prompt. The answer carries `warning` where there is one.
    """

    id: UUID
    model: str
    completion: Completion
    created_at: datetime
    size: PromptSize
    key: OwnKey = field(default=None, repr=False)
    allowed: frozenset[str] = frozenset()
    most: int | None = None
    warning: str = ""
    takes: Takes = TAKES_ALL
    timeouts: ModelTimeouts = AS_ITS_PROVIDER

    @property
    def choices(self) -> int:
        """As of a Prompt."""
        return self.completion.choices

    @property
    def sounds(self) -> bool:
        """As of a Prompt."""
        return self.size.audio or not self.completion.fields.keys().isdisjoint(_OF_SOUND)

    @property
    def bound(self) -> int:
        """As of a Prompt."""
        return self.size.bound

    def limit(self, most: int) -> int:
        """As of a Prompt."""
        if self.most is None:
            return self.completion.limit(most)
        most = min(self.most, most)
        return self.completion.limited(most, OutputLimit.MAX_TOKENS).limit(most)

    @property
    def whole(self) -> bool:
        """As of a Prompt."""
        return not self.completion.stream

    def limited(self, most: int) -> "Relay":
        """As of a Prompt."""
        return replace(self, most=most)

    def to(self, model: Model) -> "Relay":
        """The same, to be asked of `model`."""
        return replace(
            self,
            model=model.upstream or model.id,
            most=None if self.most is None else min(self.most, model.max_output_tokens),
            takes=model.takes,
            timeouts=model.timeouts,
        )

    @property
    def roles(self) -> frozenset[str]:
        """As of a Prompt; none that we may change."""
        return frozenset()

    @property
    def added(self) -> frozenset[str]:
        """As of a Prompt: what a caller wrote is theirs."""
        asked = self.completion
        return frozenset(
            name
            for name, there in (
                ("output_limit", self.most is not None and not asked.has_limit),
                ("stream_options", asked.stream and not asked.has_stream_options),
            )
            if there
        )

    def taken(self, takes: Takes) -> "Relay":
        """As of a Prompt."""
        return replace(self, takes=takes)

    def body(self) -> bytes:
        """What a provider is sent."""
        asked = self.completion
        if self.most is not None:
            asked = asked.limited(self.most, self.takes.output_limit)
        return asked.body(self.model, count=self.takes.stream_options)


@dataclass(frozen=True, slots=True)
class Answering:
    """The model that answers; comes before the first part.

    It was asked with `cut` where turns were left out of the prompt for it.
    """

    model: Model
    cut: Prompt | None = None


class Part(msgspec.Struct, frozen=True):
    """Text that arrived together.

    `beside` is what was written besides, and is paid for too: thoughts, calls of tools,
    refusals, other choices. Of a Relay, `raw` is what its caller is sent. `tokens` are those
    that the provider has counted until now, where it says so on the way; `uncounted` is what
    was written in this part after it said so.
    """

    text: str
    beside: str = ""
    raw: bytes = b""
    tokens: Tokens | None = None
    uncounted: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """How the provider says it ended. `tokens` are those that it counted, if it did."""

    finish_reason: str
    model: str
    tokens: Tokens | None


class Provider(Protocol):
    """Someone who answers prompts."""

    def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """Parts as they arrive, then one Report.

        An empty Part says that the provider answers, before anything is written.
        Raises the MeshError that the caller is to see, its reason one of the
        contract's `PROVIDER_…`. Closing it closes the provider's connection.
        """
        ...
