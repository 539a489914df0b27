"""What the model says that is always there: the last turn, word by word. It counts words as tokens."""

import re
from collections.abc import Iterator

import msgspec

from mesh import errors
from services.chat.domain.conversation import Turn
from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.domain.tokens import Basis, Tokens
from services.chat.domain.wire import Wire

# A word and the space behind it, so that the words joined are the text.
_WORD = re.compile(r"\s*\S+\s*?(?=\s\S|$)|\s+")
_MOST_WORDS = 200_000


class _Text(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Text] | None = None

    @property
    def text(self) -> str:
        """The content, its parts joined where it has parts."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class _Asked(msgspec.Struct):
    messages: list[_Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_asked = msgspec.json.Decoder(_Asked)


def answer(prompt: Prompt | Relay) -> Iterator[Part | Report]:
    """A Part for each word, at most `max_tokens` of them, then a Report.

    Raises InvalidRequest for turns that are more than text.
    """
    if isinstance(prompt, Relay):
        yield from _relayed(prompt)
        return
    words = _WORD.findall(prompt.turns[-1].content)
    told = words[: prompt.max_tokens]
    yield from map(Part, told)
    read = sum(len(turn.content.split()) for turn in prompt.turns)
    reason = "stop" if len(told) == len(words) else "length"
    yield Report(reason, prompt.model, Tokens(read, len(told), Basis.PROVIDER))


def _relayed(relay: Relay) -> Iterator[Part | Report]:
    """The same in OpenAI's format, whole or as events."""
    wire = Wire(relay.id, relay.model, relay.created_at)
    stream, text = relay.completion.stream, ""
    if stream:
        yield Part("", raw=wire.role())
    for part in answer(_prompt(relay)):
        if isinstance(part, Part):
            text += part.text
            yield Part(part.text, raw=wire.text(part.text) if stream else b"")
            continue
        if stream:
            usage = wire.usage(part) if relay.completion.show_usage else b""
            yield Part("", raw=wire.finish(part) + usage)
        else:
            yield Part("", raw=wire.whole(text, part))
        yield part


def _prompt(relay: Relay) -> Prompt:
    """What echo understands of a request: texts, and how much to say."""
    try:
        asked = _asked.decode(relay.body())
    except msgspec.MsgspecError:
        raise errors.invalid("messages", "echo reads texts alone") from None
    turns = tuple(Turn(message.role, message.text) for message in asked.messages)
    most = asked.max_completion_tokens or asked.max_tokens or _MOST_WORDS
    return Prompt(relay.model, turns, most, None)
