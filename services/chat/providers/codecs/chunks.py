"""What is in a chunk or an answer of OpenAI's format, and how it is read where it is odd."""

from collections.abc import Iterator
from typing import Any

import msgspec

from services.chat.providers.codecs import lenient

MAX_NAME_CHARACTERS = 200
_NOT_WRITTEN = frozenset({"id", "type", "index", "format", "signature", "data", "encrypted"})

# Of a list, of thoughts for one, only texts have a `text`.
Content = str | list[dict[str, Any]] | None
Fields = dict[str, Any]


# What comes of JSON has no cycles: the collector need not look at it.
class Message(msgspec.Struct, gc=False):
    """What is written in a choice; all but `content` is only counted, whatever its form."""

    content: Content = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    reasoning_details: Any = None
    tool_calls: Any = None
    function_call: Any = None

    @property
    def has_more(self) -> bool:
        """Whether anything is written besides a text: hardly ever where there is one."""
        return not (
            self.reasoning_content
            is self.reasoning
            is self.reasoning_details
            is self.refusal
            is self.tool_calls
            is self.function_call
            is None
        ) or isinstance(self.content, list)

    @property
    def text(self) -> str:
        """The text of the content, whatever its form."""
        return text_of(self.content) if isinstance(self.content, list) else self.content or ""

    def beside(self) -> Iterator[str]:
        """What is written besides the text, and is made of tokens too."""
        # The same thought may stand in several of them.
        thought = self.reasoning_content or self.reasoning or self.reasoning_details
        if thought or self.refusal or self.tool_calls or self.function_call:
            for each in (thought, self.refusal, self.tool_calls, self.function_call):
                yield from _strings(each)
        if isinstance(self.content, list):
            for piece in self.content:
                if "text" not in piece:
                    yield from _strings(piece)


class Choice(msgspec.Struct, gc=False):
    """One of the replies, or what comes of it in a chunk."""

    index: int | None = 0
    delta: Message | None = None
    # Who does not really stream says all of it here, or in the way of old completions.
    message: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    # Moonshot says it here.
    usage: Any = None
    # OpenRouter does.
    error: Any = None


class Chunk(msgspec.Struct, gc=False):
    """The data of an event."""

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Any = None
    x_groq: Any = None
    error: Any = None


def chunk_of(fields: Fields, written: str = "delta") -> Chunk:
    """A chunk of what can be read of `fields`; what a choice has written is in the field `written`."""
    given = fields.get("choices")
    choices = given if isinstance(given, list) else [given]
    return Chunk(
        [_choice_of(each, written) for each in choices if isinstance(each, dict)],
        _text_or_none(fields.get("model")),
        fields.get("usage"),
        fields.get("x_groq"),
        fields.get("error"),
    )


def text_of(content: list[Any]) -> str:
    """The text in parts of a message, which may be texts themselves."""
    texts = (each.get("text") if isinstance(each, dict) else each for each in content)
    return "".join(text for text in texts if isinstance(text, str))


def is_text(content: list[Any]) -> bool:
    """Whether parts of a message are nothing but text."""
    return all(
        isinstance(each.get("text") if isinstance(each, dict) else each, str) for each in content
    )


def name_of(text: str) -> str:
    """The name of a model, or of a reason to stop, as it can be kept."""
    return cleaned(lenient.whole_characters(text))[:MAX_NAME_CHARACTERS]


def cleaned(text: str) -> str:
    """`text` without U+0000, which PostgreSQL can't hold."""
    return text.replace("\0", "")


def _choice_of(fields: Fields, written: str) -> Choice:
    said, message, text = (fields.get(name) for name in (written, "message", "text"))
    if written == "message" and not isinstance(said, dict) and isinstance(text, str):
        said = {"content": text}
    return Choice(
        _index_of(fields.get("index")),
        _message_of(said) if isinstance(said, dict) else None,
        _message_of(message) if isinstance(message, dict) else None,
        _text_or_none(text),
        _text_or_none(fields.get("finish_reason")),
        fields.get("usage"),
        fields.get("error"),
    )


def _message_of(fields: Fields) -> Message:
    names = [name for name in Message.__struct_fields__ if name != "content"]
    return Message(_content_of(fields.get("content")), *map(fields.get, names))


def _content_of(value: object) -> Content:
    match value:
        case str(text):
            return text
        case dict(piece):
            return [piece]
        case list(pieces):
            texts = ({"text": each} if isinstance(each, str) else each for each in pieces)
            return [each for each in texts if isinstance(each, dict)]
        case _:
            return None


def _index_of(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:9])
    if isinstance(value, int | float) and 0 <= value < 1 << 30:
        return int(value)
    return 0


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _strings(value: object) -> Iterator[str]:
    """The strings in `value` that a model wrote: names and types are ours to know."""
    left = [value]
    while left:
        match left.pop():
            case str(text):
                yield text
            case list(values):
                left += reversed(values)
            case dict(fields):
                left += [each for name, each in fields.items() if name not in _NOT_WRITTEN][::-1]
