"""Calls to a provider over one aiohttp session: its address, key, time limits and statuses.

What is said in a call is a codec's to know.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver

from mesh import errors
from services.chat.domain.provider import (
    Account,
    DeclinedForNow,
    OwnKey,
    Part,
    Prompt,
    Relay,
    Report,
    Timeouts,
    Unreachable,
    UnreachedInTime,
)
from services.chat.providers import retry_after
from services.chat.providers.codecs.codec import BrokeOff, Codec, TooLarge
from services.chat.providers.codecs.failure import Failed
from services.chat.providers.failures import Failures
from services.chat.providers.redaction import Redactor
from services.chat.providers.resolver import Resolver

_MAX_ERROR_BYTES = 256 << 10
# What is decoded at a time, and how much has to come together for other tasks to have a turn
# after it. What was compressed comes from memory, without a wait, and a thousand times as long.
_STEP_BYTES = 32 << 10
_TURN_BYTES = 16 << 10
_END_WITHIN_S = 0.05


class Transport:
    """One provider, by name, address and key."""

    def __init__(self, account: Account, codec: Codec, session: aiohttp.ClientSession) -> None:
        """Calls `account` by our key there, or its callers' own; does not close `session`."""
        self._name = account.name
        self._codec = codec
        self._url = account.url.rstrip("/") + codec.path
        self._query = account.query
        self._key = account.key
        self._key_header = account.key_header
        self._timeouts = account.timeouts
        self._failures = Failures(account)
        self._session = session

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, account: Account, codec: Codec, names: AbstractResolver | None = None
    ) -> AsyncIterator[Self]:
        """A provider with a session of its own, closed at the end.

        Names are looked up by `names`, or by the system.
        """
        resolver = Resolver(account, names or aiohttp.DefaultResolver())
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, resolver=resolver)
        async with (
            aclosing(resolver),
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
        ):
            yield cls(account, codec, session)

    async def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """As `Provider.stream`. Nothing is asked twice here."""
        timeouts = self._timeouts.of(prompt.timeouts)
        response = await self._asked(prompt, timeouts)
        try:
            async with response:
                if response.status != 200:
                    raise await self._refused(response, prompt.key)
                decoder = self._codec.decoder(prompt)
                redactor = Redactor(self._key if prompt.key is None else prompt.key)
                # An answer that is not streamed may be silent until its end.
                begun = prompt.whole or response.content_type == "application/json"
                try:
                    async for read in response.content.iter_any():
                        data = redactor.feed(read)
                        if not begun:
                            _limit_silence(response, timeouts.idle)
                        while True:
                            part = decoder.feed(data[:_STEP_BYTES])
                            # Whatever it is, it is a sign of life, unless it says that it failed.
                            if not begun and not decoder.done:
                                begun, part = True, part or Part("")
                            if part is not None:
                                yield part
                            if len(data) > _TURN_BYTES:
                                await asyncio.sleep(0)
                            data = data[_STEP_BYTES:]
                            if not data or decoder.done:
                                break
                        if decoder.done:
                            await _rest(response)
                            break
                except (aiohttp.ClientError, TimeoutError):
                    if not decoder.is_whole:
                        raise
                if (held := redactor.end()) and (part := decoder.feed(held)) is not None:
                    yield part
                for each in decoder.end():
                    yield each
        except aiohttp.SocketTimeoutError:
            raise self._failures.late(f"fell silent for {timeouts.idle:g} seconds") from None
        except TimeoutError:
            raise self._failures.late(f"took longer than {timeouts.total:g} seconds") from None
        except Failed as failed:
            raise self._failures.of(failed.failure, prompt.key) from None
        except TooLarge:
            raise self._failures.too_large() from None
        except (aiohttp.ClientError, BrokeOff):
            raise self._failures.broke_off() from None

    async def _asked(self, prompt: Prompt | Relay, timeouts: Timeouts) -> aiohttp.ClientResponse:
        """The answer to `prompt`, of which the status is known."""
        try:
            return await self._session.post(
                self._url,
                params=self._query,
                # Of a stream a part is sent at a time, and others have their turn between them.
                data=io.BytesIO(self._codec.encode(prompt)),
                headers=self._headers(prompt.key),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeouts.total, connect=timeouts.connect),
            )
        except aiohttp.ConnectionTimeoutError:
            raise UnreachedInTime(
                "PROVIDER_TIMEOUT",
                f"{self._name} took no connection for {timeouts.connect:g} seconds",
                metadata=self._named(),
            ) from None
        except aiohttp.ClientConnectorError:
            raise Unreachable(
                "PROVIDER_UNAVAILABLE", f"{self._name} can't be reached", metadata=self._named()
            ) from None
        except TimeoutError:
            raise self._failures.late(f"took longer than {timeouts.total:g} seconds") from None
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            raise DeclinedForNow(
                "PROVIDER_BROKE_OFF",
                f"{self._name} closed the connection without an answer",
                metadata=self._named(),
            ) from None
        except aiohttp.ClientError:
            raise self._failures.broke_off() from None

    def _headers(self, own: OwnKey) -> dict[str, str]:
        key = self._key if own is None else own
        return {
            **(self._with_key(key) if key else {}),
            "Content-Type": "application/json",
            # A compressed answer could unpack to any size.
            "Accept-Encoding": "identity",
        }

    def _with_key(self, key: str) -> dict[str, str]:
        return {self._key_header: key} if self._key_header else {"Authorization": f"Bearer {key}"}

    async def _refused(self, response: aiohttp.ClientResponse, own: OwnKey) -> errors.MeshError:
        """What a status other than 200 means for our caller."""
        body, status = bytearray(), response.status
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async for data in response.content.iter_any():
                body += data[: _MAX_ERROR_BYTES - len(body)]
                if len(body) == _MAX_ERROR_BYTES:
                    break
        failure = self._codec.failure(status, bytes(body))
        wait = retry_after.of_headers(response.headers, is_limited=failure.status == 429)
        if wait is not None:
            failure = replace(failure, retry_after=wait)
        return self._failures.of(failure, own)

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


def _limit_silence(response: aiohttp.ClientResponse, idle: float) -> None:
    """Lets a read take `idle` seconds from now on.

    How long the first may take is for those to say who ask: a model may think
    for longer than it may pause.
    """
    connection = response.connection
    if connection is None or connection.protocol is None:  # All has arrived already.
        return
    protocol = connection.protocol
    protocol.read_timeout = idle
    # A long answer may end while its reader is behind. Who then reads on starts the time
    # anew, on a connection that waits for the next request and would fail it.
    response.content.on_eof(partial(setattr, protocol, "read_timeout", None))
    protocol.start_timeout()


async def _rest(response: aiohttp.ClientResponse) -> None:
    """Reads the end of a stream that said all, as without it the connection is not used again."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(_END_WITHIN_S):
            await response.content.readany()
