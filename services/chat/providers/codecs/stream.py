"""A stream of chunks in OpenAI's format."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.domain.tokens import Tokens
from services.chat.providers.codecs import failure, lenient
from services.chat.providers.codecs.chunks import Choice, Chunk, Message, chunk_of, name_of
from services.chat.providers.codecs.codec import BrokeOff, TooLarge
from services.chat.providers.codecs.failure import Failed, Failure
from services.chat.providers.codecs.sse import Lines
from services.chat.providers.codecs.usage import tokens_of

MAX_LINE_BYTES = 1 << 20
# Its text is sent once more at the end, in a message of at most 4 MiB.
_MAX_TEXT_BYTES = 3 << 20
# Of all that comes, whatever it is: no reply of a model has as much.
_MAX_STREAM_BYTES = 256 << 20

# The reason to stop of one that failed.
FAILED = "error"

_chunks = msgspec.json.Decoder(Chunk)
_CHOICES = re.compile(rb'"choices"\s*:\s*\[')
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
# What is nested too deep is a RecursionError.
_WRONG = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class EventStream:
    """Takes apart one event stream (WHATWG HTML, 9.2), as it arrives.

    What can't be read strictly is read for what it says, and passed on as it came. A line of
    data that is a JSON value by itself is not waited on for the end of its event.
    """

    def __init__(self, prompt: Prompt | Relay) -> None:
        """Reads what is answered to `prompt`, to be passed on where it is a Relay."""
        self._relayed = prompt if isinstance(prompt, Relay) else None
        self._asked = prompt.model
        self._warning = self._relayed.warning if self._relayed is not None else ""
        self._lines = Lines(MAX_LINE_BYTES)
        self._size = 0
        # The type of the event that is read, and its data where no line is a value by itself.
        self._event = b""
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._finish_reason = ""
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._named = ""
        self._model = ""
        self._tokens: Tokens | None = None
        self._told: Tokens | None = None
        self._texts: list[str] = []
        # Half a character, of which the other half is to come.
        self._half = ""
        self._beside: list[str] = []
        self._uncounted: list[str] = []
        self._raws: list[bytes] = []
        self._written = 0
        # Whether some of it could not be read strictly: it may hold halves of characters.
        self._is_odd = False
        self._is_complete = False
        self._wrong: Exception | None = None
        self.done = False

    @property
    def is_whole(self) -> bool:
        """As `Decoder.is_whole`."""
        if self._wrong is not None:
            return False
        return self._is_complete or (bool(self._finish_reason) and self._begun <= self._finished)

    def feed(self, data: bytes) -> Part | None:
        """As `Decoder.feed`. An error ends it; the text before still counts."""
        over: Exception | None = None
        self._size += len(data)
        if self._size > _MAX_STREAM_BYTES:
            data, over = data[: _MAX_STREAM_BYTES - self._size], TooLarge()
        lines = self._lines
        if (
            lines.is_plain
            and data.endswith(b"\n\n")
            and b"\r" not in data
            and len(data) <= MAX_LINE_BYTES
        ):
            cut = data.split(b"\n")  # Whole events, as they mostly come.
        else:
            cut = lines.feed(data)
            if lines.too_long:
                over = BrokeOff()
        for line in cut:
            if not line:
                if self._data or self._event:
                    self._dispatch()
            elif line.startswith(b"data:") and not self._data:
                payload = line[5:].strip()
                try:
                    chunk = _chunks.decode(payload)
                except _WRONG:
                    self._read_oddly(payload, line)
                else:
                    self._take(chunk, payload)
                if self.done:
                    return self._part()
            elif not line.startswith(b":"):
                self._field(line)
        if over is not None:
            self._end_by(over)
        return self._part()

    def end(self) -> Iterator[Part | Report]:
        """As `Decoder.end`. Where nothing but [DONE] says that it is whole, it says "stop"."""
        if not self.done:
            # What ends without the end of its line is taken where it is whole by itself.
            if _is_value(self._lines.rest) and (part := self.feed(b"\n")) is not None:
                yield part
            self._dispatch()
        if self._half:
            self._half = ""
            self._write("\ufffd")
        if (part := self._part()) is not None:
            yield part
        if self._wrong is not None:
            raise self._wrong
        if not self.is_whole:
            raise BrokeOff
        yield Report(self._finish_reason or "stop", self._model or self._asked, self._tokens)

    def _part(self) -> Part | None:
        texts, counted = self._texts, self._tokens is not self._told
        beside = "".join(self._beside) if self._beside else ""
        if not (texts or beside or self._raws or counted):
            self._beside = []
            return None
        part = Part(
            "".join(texts),
            beside,
            b"".join(self._raws),
            self._tokens,
            "".join(self._uncounted) if self._uncounted else "",
        )
        self._texts, self._beside, self._raws, self._uncounted = [], [], [], []
        self._told = self._tokens
        return part

    def _end_by(self, wrong: Exception) -> None:
        self.done, self._wrong = True, wrong

    def _field(self, line: bytes) -> None:
        """Reads a line of any field but a first one of data. Others, and comments, say nothing."""
        name, _, value = line.partition(b":")
        if name == b"event":
            self._event = value.strip()
        elif name == b"data" and self._data:
            self._keep(line)

    def _read_oddly(self, payload: bytes, line: bytes) -> None:
        """Reads data that is no chunk by itself, or keeps its line for the end of its event."""
        payload = payload.removeprefix(b"data:").strip()  # Some proxies say it once more.
        if payload.startswith(b"[DONE]"):
            self.done = self._is_complete = True
        elif not payload:
            self._pass_over(payload)
        else:
            try:
                value = lenient.loads(payload)
            except ValueError:
                self._keep(line)
            else:
                self._take_value(value, payload)

    def _keep(self, line: bytes) -> None:
        self._data.append(line)
        self._data_bytes += len(line)
        if self._data_bytes > MAX_LINE_BYTES:
            self._end_by(BrokeOff())

    def _dispatch(self) -> None:
        """Ends an event: reads what was kept of it, as one value or, if it is none, line by line."""
        lines, self._data, self._data_bytes = self._data, [], 0
        data = [line[5:].removeprefix(b" ") for line in lines]
        try:
            if len(data) > 1:
                payload = b"\n".join(data)
                self._take_value(lenient.loads(payload), payload)
                data = []
        except ValueError:
            pass
        for each in data:
            if self.done:
                break
            self._read_oddly(each.strip(), b"data:" + each)
            if self._data:  # It is no value by itself either.
                self._data, self._data_bytes = [], 0
                self._take_value(each.decode(errors="replace"), each)
        self._event = b""

    def _take_value(self, value: object, payload: bytes) -> None:
        if isinstance(value, dict):
            self._is_odd = True
            self._take(chunk_of(value), payload)
        elif (told := failure.of_answer(value, self._event)) is not None:
            self._end_by(Failed(told))
        else:
            self._pass_over(payload)

    def _take(self, chunk: Chunk, payload: bytes) -> None:
        choices = chunk.choices
        is_suspect = not choices or chunk.error or self._event == b"error"
        if is_suspect and (told := self._failure(payload)) is not None:
            self._end_by(Failed(told))
            return
        if chunk.model != self._named and chunk.model:
            self._named, self._model = chunk.model, name_of(chunk.model)
        for choice in choices or ():
            self._choice(choice, payload)
        if chunk.x_groq is not None and isinstance(chunk.x_groq, dict):
            self._count(chunk.x_groq.get("usage"))
        if chunk.usage is not None:
            self._count(chunk.usage)
        if self._relayed is not None and not self.done:
            if chunk.usage is None and not self._warning and not self._is_odd:
                self._raws.append(b"data: " + _utf8(payload) + b"\n\n")
            else:
                self._relay(self._relayed, chunk, payload)

    def _failure(self, payload: bytes) -> Failure | None:
        try:
            return failure.of_answer(lenient.loads(payload), self._event)
        except ValueError:  # Nested deeper than this reader goes.
            return None

    def _count(self, usage: object) -> None:
        """Takes what is said to be used until now, if anything is."""
        tokens = tokens_of(usage)
        if tokens is not None:
            self._tokens, self._uncounted = tokens, []

    def _relay(self, relay: Relay, chunk: Chunk, payload: bytes) -> None:
        hidden = chunk.usage is not None and not relay.completion.show_usage
        if hidden and not chunk.choices:  # It was asked for by us alone.
            return
        bare = chunk.usage is not None and not chunk.choices and not _CHOICES.search(payload)
        if hidden or bare or self._warning:
            payload = edited(
                payload, without_usage=hidden, warning=self._warning, without_choices=bare
            )
            self._warning = ""
        self._raws.append(b"data: " + _utf8(payload).replace(b"\n", b"\ndata: ") + b"\n\n")

    def _pass_over(self, payload: bytes) -> None:
        """Passes on what is no JSON object as a comment: clients fail to read it as an event."""
        if self._relayed is not None:
            self._raws.append(b": data: " + _utf8(payload) + b"\n\n")

    def _choice(self, choice: Choice, payload: bytes) -> None:
        index = choice.index or 0
        delta = choice.delta
        if delta is None and index not in self._begun:
            delta = choice.message or (choice.text and Message(choice.text)) or None
        self._begun.add(index)
        if delta is not None:
            text = delta.content
            if index or text.__class__ is not str or not text or delta.has_more:
                text = self._besides(index, delta)
            if text:
                self._write(text)
            if self._written > _MAX_TEXT_BYTES:
                self._end_by(TooLarge())
        if choice.finish_reason:
            self._finished.add(index)
            self._finish_reason = name_of(choice.finish_reason)
        if choice.usage is not None:
            self._count(choice.usage)
        if choice.error and (told := self._failure(payload)) is not None:
            self._end_by(Failed(told))
        elif choice.finish_reason == FAILED:
            self._end_by(BrokeOff())

    def _besides(self, index: int, delta: Message) -> str:
        """Takes all but the text of the first choice, which it returns."""
        text, beside = delta.text, "".join(delta.beside())
        if index:
            self._written += len(text.encode(errors="replace"))
            text, beside = "", beside + text
        self._beside.append(beside)
        if self._tokens is not None:
            self._uncounted.append(beside)
        return text

    def _write(self, text: str) -> None:
        if self._half or self._is_odd:
            text, self._half = _joined(self._half + text)
        if self._tokens is not None:
            self._uncounted.append(text)
        self._written += len(text.encode(errors="replace"))
        if text:
            self._texts.append(text.replace("\0", ""))


def edited(
    payload: bytes, *, without_usage: bool, warning: str, without_choices: bool = False
) -> bytes:
    """A JSON object with `warning`, where there is one, and without what only we asked for.

    One without choices has an empty list of them: clients walk through it.
    """
    fields: dict[str, Any]
    try:
        try:
            fields, write = _fields.decode(payload), msgspec.json.encode
        except _WRONG:
            fields, write = lenient.loads(payload), lenient.dumps  # type: ignore[assignment]  # an object
        if without_usage:
            fields.pop("usage", None)
        if without_choices:
            fields["choices"] = []
        if warning:
            fields["warning"] = warning
        return write(fields)
    except ValueError:  # Nested too deep to be written anew.
        return payload


def _is_value(line: bytes) -> bool:
    """Whether a line holds data that is whole."""
    if not line.startswith(b"data:"):
        return False
    payload = line[5:].strip()
    try:
        return payload.startswith(b"[DONE]") or lenient.loads(payload) is not None
    except ValueError:
        return False


def _utf8(payload: bytes) -> bytes:
    """`payload` as event streams are decoded: what is no UTF-8 is U+FFFD."""
    if payload.isascii():
        return payload
    return payload.decode(errors="replace").encode()


def _joined(text: str) -> tuple[str, str]:
    """`text` in whole characters, and half a one where it ends in that."""
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
    return lenient.whole_characters(text.removesuffix(half)), half
