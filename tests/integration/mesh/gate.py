"""A way to a TCP server that can be shut: to its clients the server is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Gate:
    """Passes bytes between clients at `port` and the server at `target` while it is open.

    While it is `losing`, the next answer to the end of a transaction that inserted
    something does not arrive: the connection breaks, and nobody can tell its client
    whether that was committed. It was.
    """

    target: int
    port: int = 0
    losing: bool = False
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def open(self) -> None:
        """Lets clients in, on the same port as ever."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Resets what is connected, and refuses what comes."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        both = {writer, onward}
        self._writers |= both
        lost = asyncio.Event()
        await asyncio.gather(
            self._ask(reader, onward, lost),
            self._answer(there, writer, lost),
        )
        self._writers -= both

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        begun = inserted = False
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                begun |= b"BEGIN" in data
                inserted |= b"INSERT" in data
                ends = b"COMMIT" in data or b"ROLLBACK" in data or not begun
                if self.losing and inserted and ends:
                    self.losing = False
                    lost.set()
                if ends:
                    begun = inserted = False
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if lost.is_set():
                    break
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def gate(target: int) -> AsyncIterator[Gate]:
    """An open gate to the server on port `target`."""
    made = Gate(target)
    await made.open()
    try:
        yield made
    finally:
        await made.shut()
