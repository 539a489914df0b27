"""What tests of every kind share."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(check: Callable[[], T] | Callable[[], Awaitable[T]], within: float = 5.0) -> T:
    """The first truthy value of `check`, asked every 20 ms for `within` seconds.

    Raises AssertionError with the last value if there is none.
    """
    loop = asyncio.get_running_loop()
    limit = loop.time() + within
    while True:
        answer = check()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if loop.time() > limit:
            raise AssertionError(f"still {value!r} after {within:g} s")
        await asyncio.sleep(0.02)
