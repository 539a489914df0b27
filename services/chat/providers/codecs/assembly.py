"""A whole answer in OpenAI's format that came as a stream of chunks."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.domain.tokens import Tokens
from services.chat.providers.codecs import answer, lenient
from services.chat.providers.codecs.answer import MAX_ANSWER_BYTES
from services.chat.providers.codecs.chunks import Fields, is_text, text_of
from services.chat.providers.codecs.codec import BrokeOff, TooLarge
from services.chat.providers.codecs.failure import Failed
from services.chat.providers.codecs.stream import EventStream

# What each chunk says anew; other texts go on where those before ended.
_SAID_ANEW = frozenset({"role", "id", "type", "name", "format", "finish_reason"})


class _Pieces(list[str]):
    """A text in pieces: joined once, since copying it for each takes seconds for a long one."""


class Assembly:
    """Puts the chunks together that came in place of one JSON value."""

    def __init__(self, prompt: Prompt | Relay) -> None:
        """Reads what is answered to `prompt`."""
        self._prompt = prompt
        if isinstance(prompt, Relay):
            shown = replace(prompt.completion, show_usage=True)
            prompt = replace(prompt, completion=shown, warning="")
        self._stream = EventStream(prompt)
        self._fields: Fields = {}
        self._choices: dict[int, Fields] = {}
        self._written: list[str] = []
        self._tokens: Tokens | None = None

    @property
    def done(self) -> bool:
        """As `Decoder.done`."""
        return self._stream.done

    @property
    def is_whole(self) -> bool:
        """As `Decoder.is_whole`."""
        return self._stream.is_whole

    def feed(self, data: bytes) -> None:
        """Keeps what is in `data` until all is there."""
        if (part := self._stream.feed(data)) is not None:
            self._add(part)

    def end(self) -> Iterator[Part | Report]:
        """As `Decoder.end`."""
        report = None
        try:
            for each in self._stream.end():
                if isinstance(each, Part):
                    self._add(each)
                else:
                    report = each
        except (Failed, BrokeOff, TooLarge):  # What came is paid for, though nobody gets it.
            yield Part("", "".join(self._written), tokens=self._tokens)
            raise
        if report is None:
            raise BrokeOff
        if not self._choices:  # It said nothing, which is an answer too.
            self._choice(0)
        choices = [
            {"index": index, **choice, "finish_reason": choice.get("finish_reason") or "stop"}
            for index, choice in sorted(self._choices.items())
        ]
        try:
            fields = _joined({**self._fields, "object": "chat.completion", "choices": choices})
            body = lenient.dumps(fields)
        except (ValueError, RecursionError):
            raise BrokeOff from None
        if len(body) > MAX_ANSWER_BYTES:
            raise TooLarge
        for each in answer.read(self._prompt, fields, body):
            yield each if isinstance(each, Part) else report

    def _add(self, part: Part) -> None:
        self._written += (part.text, part.beside)
        self._tokens = part.tokens or self._tokens
        for event in part.raw.split(b"\n\n"):
            try:
                value = lenient.loads(event.removeprefix(b"data: ").replace(b"\ndata: ", b"\n"))
            except ValueError:
                continue
            if isinstance(value, dict):
                with contextlib.suppress(RecursionError):  # It can't be written anew either.
                    self._add_chunk(value)

    def _add_chunk(self, fields: Fields) -> None:
        choices = fields.pop("choices", None)
        self._fields |= {name: each for name, each in fields.items() if each is not None}
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.pop("index", 0)
            kept = self._choice(index if isinstance(index, int) else 0)
            delta = choice.pop("delta", None)
            if isinstance(delta, dict):
                if isinstance(content := delta.get("content"), list) and is_text(content):
                    delta["content"] = text_of(content)
                _merge(kept["message"], delta)
            _merge(kept, choice)

    def _choice(self, index: int) -> Fields:
        begun = {"message": {"role": "assistant", "content": None}}
        return self._choices.setdefault(index, begun)


def _merge(into: Fields, more: Fields) -> None:
    """Adds to a part of an answer what the next chunk says of it."""
    for name, value in more.items():
        had = into.get(name)
        match had, value:
            case _, None:
                into.setdefault(name, None)
            case dict(), dict():
                _merge(had, value)
            case _Pieces(), str():
                had.append(value)
            case _Pieces(), list():  # A text that goes on in parts.
                into[name] = [_part(had)]
                _merge(into, {name: value})
            case list(), str():
                had.append(_part(_Pieces([value])))
            case list(), list():
                for each in value:
                    _merge_item(had, each)
            case None, str() if name not in _SAID_ANEW:
                into[name] = _Pieces([value])
            case None, list():
                into[name] = []
                for each in value:
                    _merge_item(into[name], each)
            case None, dict():
                into[name] = {}
                _merge(into[name], value)
            case _:
                into[name] = had if value == "" and had is not None else value


def _merge_item(items: list[object], item: object) -> None:
    """Adds an item of a list: to the one of its index, or behind all."""
    if isinstance(item, dict):
        index = item.get("index")
        for each in items if index is not None else ():
            if isinstance(each, dict) and each.get("index") == index:
                _merge(each, item)
                return
        fresh: Fields = {}
        _merge(fresh, item)
        item = fresh
    items.append(item)


def _part(text: _Pieces) -> Fields:
    return {"type": "text", "text": text}


def _joined(value: object) -> object:
    if isinstance(value, _Pieces):
        return lenient.whole_characters("".join(value))
    if isinstance(value, list):
        return [_joined(each) for each in value]
    if isinstance(value, dict):
        return {name: _joined(each) for name, each in value.items()}
    return value
