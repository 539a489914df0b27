"""OpenAI's wire format. What a provider answers in it is hostile until decoded."""

from collections.abc import Iterator
from typing import Any

import msgspec

from mesh import errors
from services.chat.domain.models import OutputLimit
from services.chat.domain.provider import Part, Prompt, Relay, Report, too_large
from services.chat.domain.tokens import Tokens
from services.chat.providers.codecs.codec import Decoder
from services.chat.providers.codecs.usage import tokens_of

LONGEST_LINE = 1 << 20
_LONGEST_ANSWER = 3 << 20
_LONGEST_NAME = 200
_NOT_WRITTEN = frozenset({"id", "type", "index", "format", "signature", "data", "encrypted"})
# Its text is sent once more at the end, in a message of at most 4 MiB.
_LONGEST_TEXT = 3 << 20


# Of a list, of thoughts for one, only texts have a `text`.
_Content = str | list[dict[str, Any]] | None


class _Message(msgspec.Struct):
    """What is written in a choice; all but `content` is only counted, whatever its form."""

    content: _Content = None
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


class _Choice(msgspec.Struct):
    index: int | None = 0
    delta: _Message | None = None
    finish_reason: str | None = None
    # Moonshot says it here.
    usage: Any = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: Any = None
    x_groq: Any = None
    error: msgspec.Raw | None = None


class _WholeChoice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Counted(msgspec.Struct):
    usage: Any = None


class _Answer(msgspec.Struct):
    choices: list[_WholeChoice]
    model: str | None = None
    usage: Any = None


_chunks = msgspec.json.Decoder(_Chunk)
_answers = msgspec.json.Decoder(_Answer)
_counted = msgspec.json.Decoder(_Counted)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What is nested too deep is a RecursionError.
WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class OpenAI:
    """OpenAI's chat completions.

    Every prompt of ours is streamed, whether its reader wants a stream or not: one way to
    speak to a provider, text to keep when it breaks off, and a connection to close when the
    reader leaves. A request in OpenAI's own format is passed on as it came, and so is its answer.
    """

    path = "/chat/completions"

    def encode(self, prompt: Prompt | Relay) -> bytes:
        """As `Codec.encode`."""
        if isinstance(prompt, Relay):
            return prompt.completion.body(prompt.model)
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in prompt.turns],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if prompt.output_limit is not OutputLimit.NONE:
            body[prompt.output_limit.value] = prompt.max_tokens
        if prompt.temperature is not None:
            body["temperature"] = prompt.temperature
        return msgspec.json.encode(body)

    def decoder(self, provider: str, prompt: Prompt | Relay) -> Decoder:
        """As `Codec.decoder`."""
        relayed = prompt if isinstance(prompt, Relay) else None
        if prompt.whole:
            return WholeAnswer(provider, relayed.warning if relayed else "")
        return EventStream(provider, prompt.model, relayed)


class EventStream:
    """Takes apart one event stream (WHATWG HTML, 9.2), as it arrives."""

    def __init__(self, name: str, model: str, relayed: Relay | None = None) -> None:
        """Reads a stream of `model` at `name`, to be passed on where it answers `relayed`."""
        self._name = name
        self._asked = model
        self._relayed = relayed
        self._warning = relayed.warning if relayed is not None else ""
        self._rest = b""
        self._finish_reason = ""
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._model = ""
        self._tokens: Tokens | None = None
        self._told: Tokens | None = None
        self._texts: list[str] = []
        self._beside: list[str] = []
        self._uncounted: list[str] = []
        self._raws: list[bytes] = []
        self._written = 0
        self._is_too_large = False
        self.done = False

    def feed(self, data: bytes) -> Part | None:
        """What is in `data`, joined, or None.

        What is no chunk ends the stream as broken; the text before it still counts.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            self._break()
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                self._chunk(line[5:].strip())
        counted = self._tokens is not self._told
        beside = "".join(self._beside)
        if not (self._texts or beside or self._raws or counted):
            self._beside = []
            return None
        part = Part(
            "".join(self._texts),
            beside,
            b"".join(self._raws),
            self._tokens,
            "".join(self._uncounted),
        )
        self._texts, self._beside, self._raws, self._uncounted = [], [], [], []
        self._told = self._tokens
        return part

    def end(self) -> Iterator[Part | Report]:
        """How it ended. Raises Unavailable when it was cut, FailedPrecondition when too large."""
        if self._is_too_large:
            raise too_large(self._name)
        if not self._finish_reason or not self._begun <= self._finished:
            raise broke_off(self._name)
        yield Report(self._finish_reason, self._model or self._asked, self._tokens)

    def _break(self) -> None:
        self.done, self._finish_reason = True, ""

    def _chunk(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _chunks.decode(payload)
        except WRONG:
            self._break()
            return
        if chunk.error is not None:
            self._break()
            return
        if chunk.model:
            self._model = _clean(chunk.model)[:_LONGEST_NAME]
        for choice in chunk.choices or ():
            self._choice(choice)
        if isinstance(chunk.x_groq, dict):
            self._count(chunk.x_groq.get("usage"))
        if chunk.usage is not None:
            self._count(chunk.usage)
        if self._relayed is not None:
            self._relay(self._relayed, chunk, payload)

    def _count(self, usage: object) -> None:
        """Takes what is said to be used until now, if anything is."""
        tokens = tokens_of(usage)
        if tokens is not None:
            self._tokens, self._uncounted = tokens, []

    def _relay(self, relay: Relay, chunk: _Chunk, payload: bytes) -> None:
        hidden = chunk.usage is not None and not relay.completion.show_usage
        if hidden and not chunk.choices:  # It was asked for by us alone.
            return
        if hidden or self._warning:
            fields = _fields.decode(payload)
            if hidden:
                fields.pop("usage", None)
            if self._warning:
                fields["warning"] = msgspec.Raw(msgspec.json.encode(self._warning))
                self._warning = ""
            payload = msgspec.json.encode(fields)
        self._raws.append(b"data: " + payload + b"\n\n")

    def _choice(self, choice: _Choice) -> None:
        index = choice.index or 0
        self._begun.add(index)
        if choice.finish_reason:
            self._finished.add(index)
            self._finish_reason = _clean(choice.finish_reason)[:_LONGEST_NAME]
        if choice.delta is not None:
            self._delta(index, choice.delta)
        if choice.usage is not None:
            self._count(choice.usage)

    def _delta(self, index: int, delta: _Message) -> None:
        text = _text(delta.content)
        if not text or delta.has_more:
            beside = "".join(_beside(delta))
            self._beside.append(beside)
            if self._tokens is not None:
                self._uncounted.append(beside)
        if not text:
            return
        if self._tokens is not None:
            self._uncounted.append(text)
        self._written += len(text.encode())
        if self._written > _LONGEST_TEXT:
            self.done = self._is_too_large = True
        if index == 0:
            self._texts.append(_clean(text))
        else:
            self._beside.append(text)


class WholeAnswer:
    """An answer that is not streamed: passed on as it came, and read for what it used."""

    def __init__(self, name: str, warning: str = "") -> None:
        """Reads an answer of the provider `name`, which is to carry `warning` where there is one."""
        self._name = name
        self._warning = warning
        self._body = bytearray()

    @property
    def done(self) -> bool:
        """Whether it is longer than any may be."""
        return len(self._body) > _LONGEST_ANSWER

    def feed(self, data: bytes) -> None:
        """Keeps it until all is there."""
        self._body += data

    def end(self) -> Iterator[Part | Report]:
        """All of it.

        Raises Unavailable for what is none, after a Part with what it used if it says so, and
        FailedPrecondition for what is too large.
        """
        body = bytes(self._body)
        if self.done:  # Nobody says what it cost.
            yield Part("", body.decode(errors="replace"))
            raise too_large(self._name)
        try:
            answer = _answers.decode(body)
        except WRONG:
            if (tokens := _counted_in(body)) is not None:
                yield Part("", tokens=tokens)
            raise broke_off(self._name) from None
        text = _clean("".join(_text(choice.message.content) for choice in answer.choices))
        beside = "".join(each for choice in answer.choices for each in _beside(choice.message))
        reason = next((c.finish_reason for c in answer.choices if c.finish_reason), "stop")
        tokens = tokens_of(answer.usage)
        model = _clean(answer.model or "")[:_LONGEST_NAME]
        if self._warning:
            body = msgspec.json.encode(_fields.decode(body) | {"warning": self._warning})
        yield Part(text, beside, body, tokens)
        yield Report(_clean(reason)[:_LONGEST_NAME], model, tokens)


def broke_off(name: str) -> errors.Unavailable:
    """The error of a provider that stopped before its end, or sent no protocol of ours."""
    return errors.Unavailable(
        "PROVIDER_BROKE_OFF", f"{name} broke off before the end", metadata={"provider": name}
    )


def _text(content: _Content) -> str:
    """The text of `content`, whatever its form."""
    if isinstance(content, list):
        return "".join(text for piece in content if isinstance(text := piece.get("text"), str))
    return content or ""


def _counted_in(body: bytes) -> Tokens | None:
    """What `body` says was used, whatever else is in it."""
    try:
        return tokens_of(_counted.decode(body).usage)
    except WRONG:
        return None


def _beside(message: _Message) -> Iterator[str]:
    """What is written in `message` besides its text, and is made of tokens too."""
    # The same thought may stand in several of them.
    thought = message.reasoning_content or message.reasoning or message.reasoning_details
    if thought or message.refusal or message.tool_calls or message.function_call:
        for each in (thought, message.refusal, message.tool_calls, message.function_call):
            yield from _strings(each)
    if isinstance(message.content, list):
        for piece in message.content:
            if "text" not in piece:
                yield from _strings(piece)


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


def _clean(text: str) -> str:
    """`text` without U+0000, which PostgreSQL can't hold."""
    return text.replace("\0", "")
