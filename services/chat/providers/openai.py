"""Any provider that speaks OpenAI's wire format, over one aiohttp session.

Every prompt is streamed, whether its reader wants a stream or not: one way to
speak to a provider, text to keep when it breaks off, and a connection to close
when the reader leaves. What the provider sends is hostile until decoded.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

import aiohttp
import msgspec

from mesh import errors
from services.chat.domain.provider import Part, Prompt, Report

_LONGEST_LINE = 1 << 20
_LONGEST_REFUSAL = 300


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, between two reads, and for a whole reply."""

    connect: float
    idle: float
    total: float


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
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


class _Problem(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Problem


_chunks = msgspec.json.Decoder(_Chunk)
_refusals = msgspec.json.Decoder(_Refusal)


class OpenAI:
    """One provider, by name, address and key."""

    def __init__(self, name: str, url: str, key: str, session: aiohttp.ClientSession) -> None:
        """Calls `url`/chat/completions with `key`; does not close `session`."""
        self._name = name
        self._url = url.rstrip("/") + "/chat/completions"
        self._key = key
        self._session = session
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            # A compressed answer could unpack to any size.
            "Accept-Encoding": "identity",
        }

    @classmethod
    @asynccontextmanager
    async def opened(cls, name: str, url: str, key: str, timeouts: Timeouts) -> AsyncIterator[Self]:
        """A provider with a session of its own, closed at the end."""
        timeout = aiohttp.ClientTimeout(
            total=timeouts.total, sock_connect=timeouts.connect, sock_read=timeouts.idle
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            yield cls(name, url, key, session)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Part | Report]:
        """As `Provider.stream`. Nothing is asked twice: a second try could bill twice."""
        try:
            async with self._session.post(
                self._url, data=_body(prompt), headers=self._headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await self._refused(response)
                reader = _Reader(self._name)
                async for data in response.content.iter_any():
                    part = reader.read(data)
                    if part is not None:
                        yield part
                    if reader.done:
                        break
                yield reader.report(prompt)
        except TimeoutError:
            raise errors.DeadlineExceeded(
                "PROVIDER_TIMEOUT", f"{self._name} was silent for too long", metadata=self._named()
            ) from None
        except aiohttp.ClientConnectorError:
            raise self._unavailable(f"{self._name} can't be reached") from None
        except aiohttp.ClientError:
            raise broke_off(self._name) from None

    async def _refused(self, response: aiohttp.ClientResponse) -> errors.MeshError:
        """What a status other than 200 means for our caller.

        The provider's own text is passed on only where it is about the request;
        elsewhere it may speak of this installation's account or key.
        """
        status = response.status
        if status in (401, 403):
            return errors.Unavailable(
                "PROVIDER_CREDENTIALS",
                f"{self._name} refused this installation's key",
                metadata=self._named(),
            )
        if status == 429:
            wait = _seconds(response.headers.get("Retry-After"))
            return errors.Unavailable(
                "PROVIDER_RATE_LIMITED",
                f"{self._name} is rate limiting",
                metadata=self._named(),
                retry_after=wait,
            )
        if status in (400, 404, 413, 422):
            said = await self._said(response)
            return errors.FailedPrecondition(
                "PROVIDER_REFUSED", f"{self._name}: {said}", metadata=self._named()
            )
        return self._unavailable(f"{self._name} failed with status {status}")

    async def _said(self, response: aiohttp.ClientResponse) -> str:
        try:
            body = await response.content.read(_LONGEST_LINE)
            said = _refusals.decode(body).error.message
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            said = ""
        printable = "".join(c for c in said.replace(self._key, "…") if c.isprintable())
        return printable[:_LONGEST_REFUSAL] or f"refused the request with status {response.status}"

    def _unavailable(self, text: str) -> errors.Unavailable:
        return errors.Unavailable("PROVIDER_UNAVAILABLE", text, metadata=self._named())

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


class _Reader:
    """Takes apart one event stream (WHATWG HTML, 9.2), as it arrives."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._finish_reason = ""
        self._model = ""
        self._tokens: tuple[int, int] | None = None
        self.done = False

    def read(self, data: bytes) -> Part | None:
        """The text in `data`, joined, or None.

        What is no chunk ends the stream as broken; the text before it still counts.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _LONGEST_LINE:
            self._break()
        texts: list[str] = []
        for line in lines:
            if line.startswith(b"data:") and not self.done:
                self._chunk(line[5:].strip(), texts)
        return Part("".join(texts), len(texts)) if texts else None

    def report(self, prompt: Prompt) -> Report:
        """How it ended. Raises Unavailable when it was cut before its end."""
        if not self._finish_reason:
            raise broke_off(self._name)
        return Report(self._finish_reason, self._model or prompt.model, self._tokens)

    def _break(self) -> None:
        self.done, self._finish_reason = True, ""

    def _chunk(self, payload: bytes, texts: list[str]) -> None:
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
            self._model = chunk.model
        for choice in chunk.choices[:1]:
            if choice.delta is not None and choice.delta.content:
                texts.append(choice.delta.content.replace("\0", ""))
            if choice.finish_reason:
                self._finish_reason = choice.finish_reason


def broke_off(name: str) -> errors.Unavailable:
    """The error of a provider that stopped before its end, or sent no protocol of ours."""
    return errors.Unavailable(
        "PROVIDER_BROKE_OFF", f"{name} broke off before the end", metadata={"provider": name}
    )


def _body(prompt: Prompt) -> bytes:
    body: dict[str, object] = {
        "model": prompt.model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in prompt.turns],
        "max_tokens": prompt.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if prompt.temperature is not None:
        body["temperature"] = prompt.temperature
    return msgspec.json.encode(body)


def _seconds(retry_after: str | None) -> float:
    """Seconds in a Retry-After header; 1 where it has a date or nothing."""
    return float(retry_after) if retry_after and retry_after.isdigit() else 1.0
