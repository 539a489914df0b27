"""Large requests share the memory of a process, so that the pictures of one caller shut out no other.

One is let in before gRPC reads it: until then HTTP/2's flow control leaves it where it comes from.
They are read one after the other, so that what others wait for comes between.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field

from mesh import errors

SMALL_BYTES = 256 << 10
"""What is no larger is not counted: the number of calls bounds it."""
SIZE = "x-khesht-body-bytes"
"""Where the edge tells the size of a request."""

_LONGEST_WAIT_S = 20.0
# The part of the room that one caller may have.
_SHARE = 0.5


# Says that the request of this task was read.
_read: ContextVar[Callable[[], None] | None] = ContextVar("read", default=None)


def read() -> None:
    """Lets the next large request be read: that of this task was, if it is one."""
    done = _read.get()
    if done is not None:
        done()


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    caller: Hashable
    size: int
    let_in: asyncio.Future[None]


@dataclass(slots=True)
class Bodies:
    """Room for `capacity` bytes of large requests. One that is larger is let in alone."""

    capacity: int
    _held: Counter[Hashable] = field(default_factory=Counter)
    # Bytes that are let in now.
    taken: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)
    _reading: _Waiting | None = None

    async def let_in(self, caller: Hashable, size: int) -> Callable[[], None]:
        """Returns when there is room for `size` bytes of `caller`; call what it returns at the end.

        Who came first is first, but for those who have their part already. Raises Unavailable
        after 20 seconds.
        """
        turn = _Waiting(caller, size, asyncio.get_running_loop().create_future())
        self._waiting.append(turn)
        self._look()
        try:
            async with asyncio.timeout(_LONGEST_WAIT_S):
                await turn.let_in
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._leave(turn)
            if isinstance(error, TimeoutError):
                text = "too many large requests at once"
                raise errors.Unavailable("OVERLOADED", text, retry_after=1) from None
            raise
        _read.set(lambda: self._read(turn))
        return lambda: self._leave(turn)

    def _look(self) -> None:
        """Lets in who may be."""
        for turn in list(self._waiting):
            if self._reading is not None:
                return
            if self.taken and self.taken + turn.size > self.capacity:
                return
            held = self._held[turn.caller]
            if held and held + turn.size > self.capacity * _SHARE:
                continue
            self._waiting.remove(turn)
            self.taken += turn.size
            self._held[turn.caller] += turn.size
            self._reading = turn
            if not turn.let_in.done():
                turn.let_in.set_result(None)

    def _read(self, turn: _Waiting) -> None:
        if self._reading is turn:
            self._reading = None
            self._look()

    def _leave(self, turn: _Waiting) -> None:
        if self._reading is turn:
            self._reading = None
        self.taken -= turn.size
        self._held[turn.caller] -= turn.size
        if not self._held[turn.caller]:
            del self._held[turn.caller]
        self._look()
