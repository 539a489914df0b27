"""Takes apart what a provider answers in OpenAI's wire format; all of it is hostile until decoded."""

import msgspec

from mesh import errors
from services.chat.domain.completion import Completion
from services.chat.domain.provider import Part, Report

LONGEST_LINE = 1 << 20
_LONGEST_NAME = 200
# Its text is sent once more at the end, in a message of at most 4 MiB.
_LONGEST_TEXT = 3 << 20


class _Piece(msgspec.Struct):
    text: str | None = None


# Some models write a list, of thoughts for one, in which only texts have a `text`.
_Content = str | list[_Piece] | None


class _Delta(msgspec.Struct):
    content: _Content = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    model: str | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


class _Said(msgspec.Struct):
    content: _Content = None


class _WholeChoice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_WholeChoice]
    model: str | None = None
    usage: _Usage | None = None


_chunks = msgspec.json.Decoder(_Chunk)
_answers = msgspec.json.Decoder(_Answer)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Reader:
    """Takes apart one event stream (WHATWG HTML, 9.2), as it arrives."""

    def __init__(self, name: str, relayed: Completion | None = None) -> None:
        """Reads a stream of the provider `name`, to be passed on where it answers `relayed`."""
        self._name = name
        self._relayed = relayed
        self._rest = b""
        self._finish_reason = ""
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._model = ""
        self._tokens: tuple[int, int] | None = None
        self._texts: list[str] = []
        self._raws: list[bytes] = []
        self._pieces = 0
        self._written = 0
        self.done = False

    def read(self, data: bytes) -> Part | None:
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
        if not self._pieces and not self._raws:
            return None
        part = Part("".join(self._texts), self._pieces, b"".join(self._raws))
        self._texts, self._raws, self._pieces = [], [], 0
        return part if part.text or part.raw else None

    def report(self, model: str) -> Report:
        """How it ended. Raises Unavailable when it was cut before its end."""
        if not self._finish_reason or not self._begun <= self._finished:
            raise broke_off(self._name)
        return Report(self._finish_reason, self._model or model, self._tokens)

    def _break(self) -> None:
        self.done, self._finish_reason = True, ""

    def _chunk(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self.done = True
            return
        try:
            chunk = _chunks.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._break()
            return
        if chunk.error is not None:
            self._break()
            return
        if chunk.usage is not None:
            self._tokens = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if chunk.model:
            self._model = _clean(chunk.model)[:_LONGEST_NAME]
        for choice in chunk.choices:
            self._choice(choice)
        if self._relayed is not None:
            if chunk.usage is None or self._relayed.show_usage:
                self._raws.append(b"data: " + payload + b"\n\n")
            elif chunk.choices:  # Usage was asked for by us alone.
                rest = {
                    name: raw for name, raw in _fields.decode(payload).items() if name != "usage"
                }
                self._raws.append(b"data: " + msgspec.json.encode(rest) + b"\n\n")
            # Tool calls and the like are written in tokens too.
            self._pieces = max(self._pieces, len(self._raws))

    def _choice(self, choice: _Choice) -> None:
        self._begun.add(choice.index)
        if choice.finish_reason:
            self._finished.add(choice.index)
            self._finish_reason = _clean(choice.finish_reason)[:_LONGEST_NAME]
        text = _text(choice.delta.content) if choice.delta is not None else ""
        if text:
            self._pieces += 1
            self._written += len(text.encode())
            if self._written > _LONGEST_TEXT:
                self._break()
            if choice.index == 0:
                self._texts.append(_clean(text))


def read_whole(name: str, body: bytes) -> tuple[Part, Report]:
    """An answer that is not streamed: passed on as it came, and read for what it used.

    Raises Unavailable for what is none.
    """
    try:
        answer = _answers.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise broke_off(name) from None
    text = _clean("".join(_text(choice.message.content) for choice in answer.choices))
    used = answer.usage
    reason = next((c.finish_reason for c in answer.choices if c.finish_reason), "stop")
    tokens = (used.prompt_tokens, used.completion_tokens) if used else None
    model = _clean(answer.model or "")[:_LONGEST_NAME]
    report = Report(_clean(reason)[:_LONGEST_NAME], model, tokens)
    return Part(text, len(text) // 4 + 1, body), report


def broke_off(name: str) -> errors.Unavailable:
    """The error of a provider that stopped before its end, or sent no protocol of ours."""
    return errors.Unavailable(
        "PROVIDER_BROKE_OFF", f"{name} broke off before the end", metadata={"provider": name}
    )


def _text(content: _Content) -> str:
    """The text of `content`, whatever its form."""
    if isinstance(content, list):
        return "".join(piece.text or "" for piece in content)
    return content or ""


def _clean(text: str) -> str:
    """`text` without U+0000, which PostgreSQL can't hold."""
    return text.replace("\0", "")
