"""Calls to a provider over one aiohttp session: its address, key, time limits and statuses.

What is said in a call is a codec's to know.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Self

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver

from mesh import errors
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
from services.chat.providers.codecs.codec import Codec
from services.chat.providers.codecs.openai import LONGEST_LINE, WRONG, broke_off
from services.chat.providers.resolver import Resolver

_LONGEST_REFUSAL = 300
_END_WITHIN = 0.05
# Statuses of a server, or of a proxy before it, that did nothing and may do so soon.
_PASSING = frozenset({500, 502, 503, 504})


class _Problem(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Problem


_refusals = msgspec.json.Decoder(_Refusal)


class Transport:
    """One provider, by name, address and key."""

    def __init__(self, account: Account, codec: Codec, session: aiohttp.ClientSession) -> None:
        """Calls `account` by our key there, or its callers' own; does not close `session`."""
        self._name = account.name
        self._codec = codec
        self._url = account.url.rstrip("/") + codec.path
        self._key = account.key
        self._timeouts = account.timeouts
        self._session = session

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, account: Account, codec: Codec, names: AbstractResolver | None = None
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
            yield cls(account, codec, session)

    async def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """As `Provider.stream`. Nothing is asked twice here."""
        response = await self._asked(prompt)
        try:
            async with response:
                if response.status != 200:
                    raise await self._refused(response, prompt.key)
                decoder = self._codec.decoder(self._name, prompt)
                begun = prompt.whole  # An answer that is not streamed may be silent until its end.
                async for data in response.content.iter_any():
                    if not begun:
                        self._limit_silence(response)
                        begun = True
                    part = decoder.feed(data)
                    if part is not None:
                        yield part
                    if decoder.done:
                        await _rest(response)
                        break
                for each in decoder.end():
                    yield each
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
                data=self._codec.encode(prompt),
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
        protocol = connection.protocol
        protocol.read_timeout = self._timeouts.idle
        # A long answer may end while its reader is behind. Who then reads on starts the time
        # anew, on a connection that waits for the next request and would fail it.
        response.content.on_eof(partial(setattr, protocol, "read_timeout", None))
        protocol.start_timeout()

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
            body = await _read(response, LONGEST_LINE)
            said = _refusals.decode(body).error.message
        except (aiohttp.ClientError, TimeoutError, *WRONG):
            said = ""
        printable = "".join(c for c in said if c.isprintable())
        printable = printable.replace(key, "…") if key else printable
        return printable[:_LONGEST_REFUSAL] or f"refused the request with status {response.status}"

    def _late(self, text: str) -> errors.DeadlineExceeded:
        return errors.DeadlineExceeded(
            "PROVIDER_TIMEOUT", f"{self._name} {text}", metadata=self._named()
        )

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


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


def _seconds(retry_after: str | None) -> float:
    """Seconds in a Retry-After header; 1 where it has a date or nothing."""
    given = retry_after or ""
    return min(float(given), 3600.0) if given.isascii() and given.isdigit() else 1.0
