"""The reader of a stream, who may stop reading: what is held for them is freed then."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from mesh import errors

# What the edge takes of a stream ahead of its reader.
_WINDOW_BYTES = 1 << 16
# How often it is looked, in a timeout: for each message a timer would cost more than the rest.
_LOOKS = 10


class Reader:
    """Writes to a stream; when its reader takes nothing for `timeout` seconds, frees what is `held`.

    Is to be closed with the stream.
    """

    __slots__ = ("_context", "_freeing", "_held", "_look_at", "_loop", "_timeout", "_until")

    def __init__(self, context: Any, timeout: float, held: AsyncExitStack) -> None:  # noqa: ANN401 - gRPC's
        """Writes to `context`."""
        self._context = context
        self._timeout = timeout
        self._held = held
        self._loop = asyncio.get_running_loop()
        # When a message that waits to be taken has waited for too long; None where none does.
        self._until: float | None = None
        self._freeing: asyncio.Task[None] | None = None
        self._look_at = self._loop.call_later(timeout / _LOOKS, self._look)

    async def write(self, message: Any) -> None:  # noqa: ANN401 - a message of protobuf
        """Writes a message, and waits until it is taken.

        One that is larger than a window has more time: how much of it was read is not known.
        gRPC does not let go of a message that it can't send, so this goes on waiting until the
        reader takes it, or the edge gives the stream up. Raises Aborted then.
        """
        windows = max(message.ByteSize() / _WINDOW_BYTES, 1)
        self._until = self._loop.time() + windows * self._timeout
        try:
            await self._context.write(message)
        finally:
            self._until = None
        if self._freeing is not None:
            await self._freeing
            raise errors.Aborted("READER_STALLED", f"nothing was read for {self._timeout:g} s")

    def close(self) -> None:
        """Looks no more."""
        self._look_at.cancel()

    def _look(self) -> None:
        if self._until is not None and self._loop.time() >= self._until:
            self._freeing = self._loop.create_task(self._held.aclose())
        else:
            self._look_at = self._loop.call_later(self._timeout / _LOOKS, self._look)
