"""What tests of every kind share."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests import patience

T = TypeVar("T")


async def eventually(check: Callable[[], T] | Callable[[], Awaitable[T]], within: float = 5.0) -> T:
    """The first truthy value of `check`, asked every 20 ms for `within` seconds.

    On a machine that is slow or busy it waits longer, as `tests.patience` measures when the time
    is over. Raises AssertionError with the last value if there is none.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        answer = check()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        waited = loop.time() - began
        if patience.is_over(waited, within):
            raise AssertionError(f"still {value!r} after {waited:.1f} s, for {within:g} s")
        await asyncio.sleep(0.02)
