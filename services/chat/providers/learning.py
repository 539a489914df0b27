"""What models turn out not to take, learnt from their refusals: of one process, until it ends.

The models file says it better: each lesson costs a call, and is logged with what to write there.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import structlog

from mesh import errors
from services.chat.domain.history import ContextLength
from services.chat.domain.models import OutputLimit, SystemRole, Takes
from services.chat.domain.provider import Prompt, Relay
from services.chat.providers import context_length

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("providers")

_MAX_MODELS = 1_000
_WINDOW = "context_window"
# Words by which servers say that they do not know a field, or take none of its values but one.
_NOT_TAKEN = re.compile(
    r"unsupported|not support|n't support|unrecogni[sz]ed|unknown|unexpected|not permitted"
    r"|not allowed|not enabled|no longer|deprecated|extra (inputs|fields)|only the default"
    r"|only user and assistant|alternate between|must alternate|is not one of|should be one of"
    r"|invalid role|invalid (?:enum )?value|input should be"
)
_OF_ROLES = re.compile(
    r"\broles?\b|\b(system|developer) (prompt|message|instruction)|\balternate\b"
)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a provider says of a request: its text in small letters, and the field to blame."""

    text: str
    param: str

    @classmethod
    def of(cls, error: errors.MeshError) -> "_Refusal | None":
        """None for an error that is not about a field which is not taken."""
        if not isinstance(error, errors.FailedPrecondition | errors.InvalidRequest):
            return None
        text = error.message.lower()
        param = error.metadata.get("provider_param", "")
        return cls(text, param) if _NOT_TAKEN.search(text) else None

    def names(self, name: str) -> bool:
        """Whether it is about the field or the value `name`."""
        return self.param == name or re.search(rf"\b{name}\b", self.text) is not None


@dataclass(slots=True)
class Learnt:
    """What the models of one provider do not take, by the names that it has for them."""

    provider: str
    _by_model: dict[str, dict[str, object]] = field(default_factory=dict)

    def applied(self, prompt: Prompt | Relay) -> Prompt | Relay:
        """`prompt` as its model is known to take it."""
        known = self._by_model.get(prompt.model)
        if known is None:
            return prompt
        takes = {name: value for name, value in known.items() if name != _WINDOW}
        prompt = prompt.taken(replace(prompt.takes, **takes))  # type: ignore[arg-type]  # fields of Takes
        window = known.get(_WINDOW)
        if isinstance(window, int) and isinstance(prompt, Prompt):
            return prompt.fitting(window)
        return prompt

    def remember(self, model: str, lessons: dict[str, object]) -> None:
        """Keeps `lessons`, and says what to write in the models file."""
        if len(self._by_model) >= _MAX_MODELS and model not in self._by_model:
            del self._by_model[next(iter(self._by_model))]
        self._by_model[model] = self._by_model.get(model, {}) | lessons
        log.warning(
            "a model does not take what it was sent; write this in the models file",
            provider=self.provider,
            model=model,
            write=", ".join(f"{name} = {_toml(value)}" for name, value in lessons.items()),
        )


@dataclass(slots=True)
class Lesson:
    """What one call learns: nothing is kept before the model has answered without it."""

    learnt: Learnt
    prompt: Prompt | Relay
    _found: dict[str, object] = field(default_factory=dict)
    _tried: set[tuple[str, object]] = field(default_factory=set)
    _is_cut: bool = False

    def after(self, error: errors.MeshError) -> bool:
        """Whether `prompt` is to be asked again, as it is now, after this refusal of it."""
        if (length := context_length.told(error)) is not None:
            return self._cut(length)
        refusal = _Refusal.of(error)
        if refusal is None:
            return False
        added, takes = self.prompt.added, self.prompt.takes
        for name, value in _otherwise(refusal, takes, self.prompt.roles):
            if name in added and (name, value) not in self._tried:
                self._tried |= {(name, value), (name, getattr(takes, name))}
                self._found[name] = value
                self.prompt = self.prompt.taken(replace(takes, **{name: value}))  # type: ignore[arg-type]  # as above
                return True
        return False

    def _cut(self, length: ContextLength) -> bool:
        """Whether `prompt` is shorter now. Once: who goes on refusing is believed."""
        before = self.prompt
        if self._is_cut or not isinstance(before, Prompt) or not before.truncates:
            return False
        self._is_cut = True
        self.prompt = before.cut(length)
        if length.window is not None:
            self._found[_WINDOW] = length.window
        return self.prompt != before

    def end(self) -> None:
        """Keeps what was found: the model answers."""
        if self._found:
            self.learnt.remember(self.prompt.model, self._found)


def _otherwise(
    refusal: _Refusal, takes: Takes, roles: frozenset[str]
) -> Iterator[tuple[str, object]]:
    """What may be done otherwise after `refusal`, the likeliest first; `roles` were sent."""
    limit = takes.output_limit
    if limit is not OutputLimit.NONE and refusal.names(limit.value):
        others = [OutputLimit.MAX_COMPLETION_TOKENS, OutputLimit.MAX_TOKENS, OutputLimit.NONE]
        for other in others:
            if other is not limit:
                yield "output_limit", other
    if takes.temperature and refusal.names("temperature"):
        yield "temperature", False
    if takes.stream_options and refusal.names("stream_options"):
        yield "stream_options", False
    if _OF_ROLES.search(refusal.text) or refusal.param.endswith("role"):
        if "developer" in roles:
            yield "system_role", SystemRole.SYSTEM
        elif refusal.names("developer"):
            yield "system_role", SystemRole.DEVELOPER
        yield "system_role", SystemRole.NONE


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()
