"""A whole answer in OpenAI's format, which is one JSON value."""

from collections.abc import Iterator
from typing import Any

from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.providers.codecs import failure, lenient
from services.chat.providers.codecs.chunks import Fields, chunk_of, cleaned, name_of
from services.chat.providers.codecs.codec import BrokeOff, TooLarge
from services.chat.providers.codecs.failure import Failed
from services.chat.providers.codecs.stream import FAILED, edited
from services.chat.providers.codecs.usage import tokens_of

MAX_ANSWER_BYTES = 3 << 20


class WholeAnswer:
    """An answer that is not streamed: passed on as it came, and read for what it used.

    Where a stream was asked for, it is passed on as its events.
    """

    def __init__(self, prompt: Prompt | Relay) -> None:
        """Reads what is answered to `prompt`."""
        self._prompt = prompt
        self._body = bytearray()

    @property
    def done(self) -> bool:
        """Whether it is longer than any may be."""
        return len(self._body) > MAX_ANSWER_BYTES

    @property
    def is_whole(self) -> bool:
        """As `Decoder.is_whole`: only its end tells."""
        return False

    def feed(self, data: bytes) -> None:
        """Keeps it until all is there."""
        self._body += data[: MAX_ANSWER_BYTES + 1 - len(self._body)]

    def end(self) -> Iterator[Part | Report]:
        """As `Decoder.end`, after a Part with what an answer used that is none, if it says so."""
        body = bytes(self._body)
        if self.done:  # Nobody says what it cost.
            yield Part("", body.decode(errors="replace"))
            raise TooLarge
        try:
            value = lenient.loads(body)
        except ValueError:
            raise BrokeOff from None
        yield from read(self._prompt, value, body)


def read(prompt: Prompt | Relay, value: object, body: bytes) -> Iterator[Part | Report]:
    """The answer `value`, which came as `body`. Raises as `WholeAnswer.end`."""
    fields: Fields = value if isinstance(value, dict) else {}
    tokens = tokens_of(fields.get("usage"))
    answer = chunk_of(fields, "message")
    messages = [choice.delta for choice in answer.choices or () if choice.delta is not None]
    told = failure.of_answer(value)
    reasons = [choice.finish_reason for choice in answer.choices or ()]
    if told is not None or not messages or FAILED in reasons:
        if tokens is not None:
            yield Part("", tokens=tokens)
        raise Failed(told) if told is not None else BrokeOff
    text = cleaned(lenient.whole_characters("".join(message.text for message in messages)))
    beside = "".join(each for message in messages for each in message.beside())
    reason = next((reason for reason in reasons if reason), "stop")
    try:
        raw = _relayed(prompt, fields, body)
    except ValueError:  # Nested too deep to be written anew.
        raise BrokeOff from None
    yield Part(text, beside, raw, tokens)
    yield Report(name_of(reason), name_of(answer.model or prompt.model), tokens)


def _relayed(prompt: Prompt | Relay, fields: Fields, body: bytes) -> bytes:
    if not isinstance(prompt, Relay):
        return b""
    if prompt.completion.stream:
        return _as_events(prompt, fields)
    return edited(body, without_usage=False, warning=prompt.warning) if prompt.warning else body


def _as_events(relay: Relay, fields: Fields) -> bytes:
    """The chunks of a whole answer: one with all of it, and one with what it used."""
    common = {name: each for name, each in fields.items() if name not in ("choices", "usage")}
    common["object"] = "chat.completion.chunk"
    given = fields.get("choices")
    choices = (
        [_as_chunk(each) for each in given if isinstance(each, dict)]
        if isinstance(given, list)
        else []
    )
    chunks: list[dict[str, Any]] = [common | {"choices": choices}]
    if relay.warning:
        chunks[0]["warning"] = relay.warning
    if relay.completion.show_usage and fields.get("usage") is not None:
        chunks.append(common | {"choices": [], "usage": fields["usage"]})
    return b"".join(b"data: " + lenient.dumps(chunk) + b"\n\n" for chunk in chunks)


def _as_chunk(choice: Fields) -> Fields:
    message = choice.get("message")
    delta = dict(message) if isinstance(message, dict) else {}
    if isinstance(calls := delta.get("tool_calls"), list):
        delta["tool_calls"] = [
            {"index": at, **each} for at, each in enumerate(calls) if isinstance(each, dict)
        ]
    return {name: each for name, each in choice.items() if name != "message"} | {"delta": delta}
