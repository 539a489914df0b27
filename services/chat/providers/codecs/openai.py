"""OpenAI's wire format. What a provider answers in it is hostile until decoded."""

from collections.abc import Iterator

import msgspec

from services.chat.domain.conversation import as_taken
from services.chat.domain.models import OutputLimit
from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.providers.codecs import failure
from services.chat.providers.codecs.answer import WholeAnswer
from services.chat.providers.codecs.assembly import Assembly
from services.chat.providers.codecs.codec import BrokeOff, Decoder
from services.chat.providers.codecs.failure import Failure
from services.chat.providers.codecs.stream import EventStream

_BOM = b"\xef\xbb\xbf"


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
            return prompt.body()
        takes = prompt.takes
        turns = as_taken(prompt.turns, takes.system_role)
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "stream": True,
        }
        if takes.stream_options:
            body["stream_options"] = {"include_usage": True}
        if takes.output_limit is not OutputLimit.NONE:
            body[takes.output_limit.value] = prompt.max_tokens
        if prompt.temperature is not None and takes.temperature:
            body["temperature"] = prompt.temperature
        return msgspec.json.encode(body)

    def decoder(self, prompt: Prompt | Relay) -> Decoder:
        """As `Codec.decoder`."""
        return _Either(prompt)

    def failure(self, status: int, body: bytes) -> Failure:
        """As `Codec.failure`."""
        return failure.of_body(status, body)


class _Either:
    """Reads a stream of events or one JSON value, whichever comes: some answer with the other."""

    def __init__(self, prompt: Prompt | Relay) -> None:
        """Reads what is answered to `prompt`."""
        self._prompt = prompt
        self._begin = b""
        self._decoder: Decoder | None = None

    @property
    def done(self) -> bool:
        """As `Decoder.done`."""
        return self._decoder is not None and self._decoder.done

    @property
    def is_whole(self) -> bool:
        """As `Decoder.is_whole`."""
        return self._decoder is not None and self._decoder.is_whole

    def feed(self, data: bytes) -> Part | None:
        """As `Decoder.feed`."""
        # White space before a value keeps connections alive, and says nothing.
        begin = (self._begin + data).removeprefix(_BOM).lstrip()
        if begin in _BOM:  # Not all of it is there, or nothing is.
            self._begin = begin
            return None
        self._decoder = _decoder(self._prompt, is_value=begin[:1] in (b"{", b"["))
        self.feed = self._decoder.feed  # type: ignore[method-assign]  # for each token a call less
        return self._decoder.feed(begin)

    def end(self) -> Iterator[Part | Report]:
        """As `Decoder.end`."""
        if self._decoder is None:
            raise BrokeOff
        yield from self._decoder.end()


def _decoder(prompt: Prompt | Relay, *, is_value: bool) -> Decoder:
    if is_value:
        return WholeAnswer(prompt)
    return Assembly(prompt) if prompt.whole else EventStream(prompt)
