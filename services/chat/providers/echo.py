"""The model that is always there: says the last turn back, word by word.

It lets everything be tried without a provider's key. It counts words as tokens.
"""

import asyncio
import re
from collections.abc import AsyncGenerator

import msgspec

from mesh import errors
from services.chat.domain.conversation import Turn
from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.domain.tokens import Basis, Tokens
from services.chat.domain.wire import Wire

# A word and the space behind it, so that the words joined are the text.
_WORD = re.compile(r"\s*\S+\s*?(?=\s\S|$)|\s+")
_PAUSE = 0.02
_LONGEST = 2.0


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


class Echo:
    """Streams at 50 words a second, or faster when that took more than 2 seconds."""

    async def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """The last turn in words; at most `max_tokens` of them."""
        if isinstance(prompt, Relay):
            async for part in self._relay(prompt):
                yield part
            return
        words = _WORD.findall(prompt.turns[-1].content)
        told = words[: prompt.max_tokens]
        pause = min(_PAUSE, _LONGEST / max(len(told), 1))
        for word in told:
            await asyncio.sleep(pause)
            yield Part(word)
        read = sum(len(turn.content.split()) for turn in prompt.turns)
        reason = "stop" if len(told) == len(words) else "length"
        tokens = Tokens(read, len(told), Basis.PROVIDER)
        yield Report(reason, prompt.model, tokens)

    async def _relay(self, relay: Relay) -> AsyncGenerator[Part | Report]:
        """The same in OpenAI's format, whole or as events."""
        wire = Wire(relay.id, relay.model, relay.created_at)
        text = ""
        if relay.completion.stream:
            yield Part("", raw=wire.role())
        async for part in self.stream(_prompt(relay)):
            if isinstance(part, Part):
                text += part.text
                raw = wire.text(part.text) if relay.completion.stream else b""
                yield Part(part.text, raw=raw)
                continue
            if relay.completion.stream:
                usage = wire.usage(part) if relay.completion.show_usage else b""
                yield Part("", raw=wire.finish(part) + usage)
            else:
                yield Part("", raw=wire.whole(text, part))
            yield part


def _prompt(relay: Relay) -> Prompt:
    """What echo understands of a request: texts, and how much to say."""
    try:
        asked = _asked.decode(relay.completion.body(relay.model))
    except msgspec.MsgspecError:
        raise errors.invalid("messages", "echo reads texts alone") from None
    turns = tuple(Turn(message.role, message.text) for message in asked.messages)
    most = asked.max_completion_tokens or asked.max_tokens or _MOST_WORDS
    return Prompt(relay.model, turns, most, None)
