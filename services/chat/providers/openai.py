"""Any provider that speaks OpenAI's wire format, over one aiohttp session.

Every prompt of ours is streamed, whether its reader wants a stream or not: one way
to speak to a provider, text to keep when it breaks off, and a connection to close
when the reader leaves. A request in OpenAI's own format is passed on as it came, and
so is its answer. What the provider sends is hostile until decoded.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver

from mesh import errors
from services.chat.domain.completion import Completion
from services.chat.domain.provider import (
    Account,
    Declined,
    OwnKey,
    Part,
    Prompt,
    Relay,
    Report,
    Unreachable,
    UnreachedInTime,
)
from services.chat.providers.resolver import Resolver

_LONGEST_LINE = 1 << 20
_LONGEST_REFUSAL = 300
_LONGEST_NAME = 200
_LONGEST_ANSWER = 3 << 20
# Its text is sent once more at the end, in a message of at most 4 MiB.
_LONGEST_TEXT = 3 << 20
_END_WITHIN = 0.05
# Statuses of a server, or of a proxy before it, that did nothing and may do so soon.
_PASSING = frozenset({500, 502, 503, 504})


class _Delta(msgspec.Struct):
    content: str | None = None


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
    content: str | None = None


class _WholeChoice(msgspec.Struct):
    message: _Said
    finish_reason: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_WholeChoice]
    model: str | None = None
    usage: _Usage | None = None


class _Problem(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Problem


_chunks = msgspec.json.Decoder(_Chunk)
_answers = msgspec.json.Decoder(_Answer)
_refusals = msgspec.json.Decoder(_Refusal)


class OpenAI:
    """One provider, by name, address and key."""

    def __init__(self, account: Account, session: aiohttp.ClientSession) -> None:
        """Calls `account` by our key there, or its callers' own; does not close `session`."""
        self._name = account.name
        self._url = account.url.rstrip("/") + "/chat/completions"
        self._key = account.key
        self._timeouts = account.timeouts
        self._session = session

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, account: Account, names: AbstractResolver | None = None
    ) -> AsyncIterator[Self]:
        """A provider with a session of its own, closed at the end.

        Names are looked up by `names`, or by the system.
        """
        timeout = aiohttp.ClientTimeout(
            total=account.timeouts.total, connect=account.timeouts.connect
        )
        resolver = Resolver(account, names or aiohttp.DefaultResolver())
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, resolver=resolver)
        async with (
            aclosing(resolver),
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
        ):
            yield cls(account, session)

    async def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """As `Provider.stream`. Nothing is asked twice here."""
        response = await self._asked(prompt)
        try:
            async with response:
                if response.status != 200:
                    raise await self._refused(response, prompt.key)
                if prompt.whole:
                    for each in await self._whole(response):
                        yield each
                    return
                reader = _Reader(
                    self._name, prompt.completion if isinstance(prompt, Relay) else None
                )
                begun = False
                async for data in response.content.iter_any():
                    if not begun:
                        self._limit_silence(response)
                        begun = True
                    part = reader.read(data)
                    if part is not None:
                        yield part
                    if reader.done:
                        await _rest(response)
                        break
                yield reader.report(prompt.model)
        except aiohttp.SocketTimeoutError:
            raise self._late(f"fell silent for {self._timeouts.idle:g} seconds") from None
        except TimeoutError:
            raise self._late(f"took longer than {self._timeouts.total:g} seconds") from None
        except aiohttp.ClientError:
            raise broke_off(self._name) from None

    async def _asked(self, prompt: Prompt | Relay) -> aiohttp.ClientResponse:
        """The answer to `prompt`, of which the status is known."""
        try:
            return await self._session.post(
                self._url,
                data=_body(prompt),
                headers=self._headers(prompt.key),
                allow_redirects=False,
            )
        except aiohttp.ConnectionTimeoutError:
            raise UnreachedInTime(
                "PROVIDER_TIMEOUT",
                f"{self._name} took no connection for {self._timeouts.connect:g} seconds",
                metadata=self._named(),
            ) from None
        except aiohttp.ClientConnectorError:
            raise Unreachable(
                "PROVIDER_UNAVAILABLE", f"{self._name} can't be reached", metadata=self._named()
            ) from None
        except TimeoutError:
            raise self._late(f"took longer than {self._timeouts.total:g} seconds") from None
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            raise Declined(
                "PROVIDER_BROKE_OFF",
                f"{self._name} closed the connection without an answer",
                metadata=self._named(),
            ) from None
        except aiohttp.ClientError:
            raise broke_off(self._name) from None

    def _limit_silence(self, response: aiohttp.ClientResponse) -> None:
        """Lets a read take `idle` seconds from now on.

        How long the first may take is for those to say who ask: a model may think
        for longer than it may pause.
        """
        connection = response.connection
        if connection is None or connection.protocol is None:  # All has arrived already.
            return
        connection.protocol.read_timeout = self._timeouts.idle
        connection.protocol.start_timeout()

    async def _whole(self, response: aiohttp.ClientResponse) -> tuple[Part, Report]:
        """An answer that is not streamed: passed on as it came, and read for what it used."""
        body = await _read(response, _LONGEST_ANSWER)
        try:
            answer = _answers.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise broke_off(self._name) from None
        text = _clean("".join(choice.message.content or "" for choice in answer.choices))
        used = answer.usage
        reason = next((c.finish_reason for c in answer.choices if c.finish_reason), "stop")
        tokens = (used.prompt_tokens, used.completion_tokens) if used else None
        report = Report(_clean(reason)[:_LONGEST_NAME], _clean(answer.model or "")[:200], tokens)
        return Part(text, len(text) // 4 + 1, body), report

    def _headers(self, own: OwnKey) -> dict[str, str]:
        key = self._key if own is None else own
        return {
            **({"Authorization": f"Bearer {key}"} if key else {}),
            "Content-Type": "application/json",
            # A compressed answer could unpack to any size.
            "Accept-Encoding": "identity",
        }

    async def _refused(self, response: aiohttp.ClientResponse, own: OwnKey) -> errors.MeshError:
        """What a status other than 200 means for our caller.

        The provider's own text is passed on only where it is about the request;
        elsewhere it may speak of this installation's account or key.
        """
        status = response.status
        if status in (401, 403) and own is not None:
            return errors.invalid(
                "api_key", f"{self._name} refused this key", reason="PROVIDER_KEY_REFUSED"
            )
        if status in (401, 403):
            return errors.Unavailable(
                "PROVIDER_CREDENTIALS",
                f"{self._name} refused this installation's key",
                metadata=self._named(),
            )
        wait = response.headers.get("Retry-After")
        if status == 429:
            return Declined(
                "PROVIDER_RATE_LIMITED",
                f"{self._name} is rate limiting",
                metadata=self._named(),
                retry_after=_seconds(wait),
            )
        if status in (400, 404, 413, 422):
            said = await self._said(response, own or self._key)
            return errors.FailedPrecondition(
                "PROVIDER_REFUSED", f"{self._name}: {said}", metadata=self._named()
            )
        failed = Declined if status in _PASSING else errors.Unavailable
        return failed(
            "PROVIDER_UNAVAILABLE",
            f"{self._name} failed with status {status}",
            metadata=self._named(),
            retry_after=_seconds(wait) if wait else None,
        )

    async def _said(self, response: aiohttp.ClientResponse, key: str) -> str:
        try:
            body = await _read(response, _LONGEST_LINE)
            said = _refusals.decode(body).error.message
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
            said = ""
        said = said.replace(key, "…") if key else said
        printable = "".join(c for c in said if c.isprintable())
        return printable[:_LONGEST_REFUSAL] or f"refused the request with status {response.status}"

    def _late(self, text: str) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            "PROVIDER_TIMEOUT", f"{self._name} {text}", metadata=self._named()
        )

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


class _Reader:
    """Takes apart one event stream (WHATWG HTML, 9.2), as it arrives."""

    def __init__(self, name: str, relayed: Completion | None = None) -> None:
        self._name = name
        self._relayed = relayed
        self._rest = b""
        self._finish_reason = ""
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
        if len(self._rest) > _LONGEST_LINE:
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
        if not self._finish_reason:
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
            asked_by_us = not chunk.choices and chunk.usage is not None
            if self._relayed.show_usage or not asked_by_us:
                self._raws.append(b"data: " + payload + b"\n\n")
            # Tool calls and the like are written in tokens too.
            self._pieces = max(self._pieces, len(self._raws))

    def _choice(self, choice: _Choice) -> None:
        if choice.finish_reason:
            self._finish_reason = _clean(choice.finish_reason)[:_LONGEST_NAME]
        if choice.delta is not None and choice.delta.content:
            self._pieces += 1
            self._written += len(choice.delta.content.encode())
            if self._written > _LONGEST_TEXT:
                self._break()
            if choice.index == 0:
                self._texts.append(_clean(choice.delta.content))


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or what came of it when it is longer than `most` bytes."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) > most:
            break
    return bytes(body)


async def _rest(response: aiohttp.ClientResponse) -> None:
    """Reads the end of a stream that said all, as without it the connection is not used again."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_END_WITHIN):
            await response.content.readany()


def _clean(text: str) -> str:
    """`text` without U+0000, which PostgreSQL can't hold."""
    return text.replace("\0", "")


def broke_off(name: str) -> errors.Unavailable:
    """The error of a provider that stopped before its end, or sent no protocol of ours."""
    return errors.Unavailable(
        "PROVIDER_BROKE_OFF", f"{name} broke off before the end", metadata={"provider": name}
    )


def _body(prompt: Prompt | Relay) -> bytes:
    if isinstance(prompt, Relay):
        return prompt.completion.body(prompt.model)
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
    given = retry_after or ""
    return min(float(given), 3600.0) if given.isascii() and given.isdigit() else 1.0
