"""A request in OpenAI's wire format: what we read of it, and what goes on untouched."""

import contextlib
import json
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec

from mesh import errors
from services.chat.domain.models import OutputLimit

Fields = dict[str, msgspec.Raw]
_NULL = msgspec.Raw(b"null")

# The limits of OpenAI's format, and what some servers take in their place.
_LIMITS = ("max_completion_tokens", "max_tokens")
_ALL_LIMITS = frozenset(
    (*_LIMITS, "n_predict", "num_predict", "max_new_tokens", "max_output_tokens")
)


class _Options(msgspec.Struct):
    include_usage: bool | None = False


class _Read(msgspec.Struct):
    model: Annotated[str, msgspec.Meta(max_length=200)]
    stream: bool | None = False
    stream_options: _Options | None = None
    # It multiplies what a request costs, so it is not for a provider alone to make sense of.
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None


_read = msgspec.json.Decoder(_Read)
_numbers = msgspec.json.Decoder(Annotated[int, msgspec.Meta(ge=1, le=1 << 30)])
_fields = msgspec.json.Decoder(Fields)
_FEWEST_BYTES_OF_A_MESSAGE = 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_HALF = re.compile("[\ud800-\udfff]")
# What is nested too deep is a RecursionError.
_WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Completion:
    """A request: the name of its model, how it wants its answer, and every field as it came."""

    model: str
    stream: bool
    show_usage: bool
    fields: Fields

    def number(self, name: str) -> int:
        """The field where it is a whole number above 0, or 0."""
        with contextlib.suppress(msgspec.MsgspecError):
            return int(_numbers.decode(self.fields.get(name, b"null")))
        return 0

    @property
    def choices(self) -> int:
        """How many replies are wanted, each of up to its limit."""
        return self.number("n") or 1

    def limit(self, most: int) -> int:
        """Tokens that one choice may have: the highest of the limits given, and never above `most`.

        Which of them a provider goes by is not known, nor what it makes of one that is no whole
        number above 0.
        """
        given = [each for each, raw in self.fields.items() if each in _ALL_LIMITS and _is_set(raw)]
        return min(max((self.number(each) or most for each in given), default=most), most)

    def limited(self, most: int, name: OutputLimit) -> "Completion":
        """The same, of which no choice may have more than `most` tokens.

        What is given of a limit stays where it is less; where none is, the model is told by the
        field of this name. What is no limit to us may be one to a provider, so it goes.
        """
        if name is OutputLimit.NONE:
            return self
        fields = {each: raw for each, raw in self.fields.items() if each not in _ALL_LIMITS}
        given = [each for each in _LIMITS if self.number(each)] or [name.value]
        for each in given:
            fields[each] = msgspec.Raw(b"%d" % min(self.number(each) or most, most))
        return replace(self, fields=fields)

    @property
    def has_limit(self) -> bool:
        """Whether its caller limits the tokens of a choice, by a field of OpenAI's."""
        return any(self.number(each) for each in _LIMITS)

    @property
    def has_stream_options(self) -> bool:
        """Whether its caller says what a stream is to have."""
        return _is_set(self.fields.get("stream_options", _NULL))

    def body(self, model: str, *, count: bool = True) -> bytes:
        """What a provider is sent: the same, but for the model's own id.

        Of a stream, usage is asked for where its model takes that: it is what the caller pays.
        """
        fields: dict[str, Any] = {**self.fields, "model": model}
        if self.stream and (count or self.has_stream_options):
            options = msgspec.json.decode(self.fields.get("stream_options", b"null")) or {}
            fields["stream_options"] = {**options, "include_usage": True}
        return msgspec.json.encode(fields)


def read(body: bytes) -> Completion:
    """The request in `body`. Raises InvalidRequest that names the field that is wrong."""
    try:
        if not body.isascii():
            body.decode()  # What msgspec does not look into may be anything.
        fields = _fields.decode(body)
        # Messages may be megabytes, and are read once more when they are counted.
        messages = memoryview(fields["messages"]) if "messages" in fields else None
        known = _read.decode(msgspec.json.encode({**fields, "messages": None}))
    except _WRONG as wrong:
        raise _invalid(wrong, body) from None
    if messages is None:
        raise errors.invalid("messages", "required")
    if messages[:1].tobytes() != b"[":
        raise errors.invalid("messages", "Expected array")
    if len(messages) < _FEWEST_BYTES_OF_A_MESSAGE and not messages[1:-1].tobytes().strip():
        raise errors.invalid("messages", "must not be empty")
    show = known.stream_options is not None and bool(known.stream_options.include_usage)
    return Completion(known.model, bool(known.stream), show, fields)


def _is_set(raw: msgspec.Raw) -> bool:
    return bytes(raw).strip() != b"null"


def _invalid(wrong: Exception, body: bytes) -> errors.InvalidRequest:
    if not isinstance(wrong, msgspec.ValidationError):
        half = _half_a_pair(body) if b"\\u" in body else None
        if half is not None:
            text = "half of a surrogate pair, which is no character"
            return errors.invalid(half, text, reason="MALFORMED_REQUEST")
        return errors.invalid("", "the body is not a JSON object", reason="MALFORMED_REQUEST")
    # msgspec says "Expected `str`, got `int` - at `$.model`", and echoes no value.
    text, _, path = str(wrong).partition(" - at `$.")
    if "missing required field" in text:
        return errors.invalid(text.split("`")[1], "required")
    return errors.invalid(path.rstrip("`"), text.replace("`", ""))


def _half_a_pair(body: bytes) -> str | None:
    """The path of the first string with half of a surrogate pair (RFC 8259, section 8.2)."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    left: list[tuple[str, Any]] = [("", found)]
    while left:
        path, value = left.pop()
        match value:
            case str() if _HALF.search(value):
                return path
            case dict():
                inside = [(_below(path, name), each) for name, each in value.items()]
                left += reversed(inside)
            case list():
                left += reversed([(f"{path}[{at}]", each) for at, each in enumerate(value)])
    return None


def _below(path: str, name: str) -> str:
    """The path of a field in the object at `path`; a name that is no identifier is not echoed."""
    known = name if _NAME.fullmatch(name) else "?"
    return f"{path}.{known}" if path else known
