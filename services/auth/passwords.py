"""Hashes and checks passwords with argon2id, a few at a time, off the event loop."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from mesh.calls.shares import Shares
from services.auth.domain.passwords import normalise

# OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, 2 rounds, 1 lane.
_MEMORY_KIB = 19 * 1024
_ROUNDS = 2
_LANES = 1
# Each takes a core for some 30 ms: of a flood of logins a hundred wait, some two
# seconds, and the others are sent away; tokens and sessions are served as ever.
_AT_ONCE = 2
_PLACES = 100
# Of them, what one caller comes to while nobody else logs in: there is room for others.
_CALLER_SHARE = 0.5
# Of one caller: others wait for so many of it, and not for all that it sent. Twice what
# runs, so that it keeps the threads busy alone.
_CALLER_AT_ONCE = 2 * _AT_ONCE


class Passwords:
    """Makes and checks hashes. `close` it at the end."""

    def __init__(self) -> None:
        """Starts no thread before it is needed."""
        self._argon2 = PasswordHasher(_ROUNDS, _MEMORY_KIB, _LANES)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "argon2")
        self._places = Shares(_PLACES, _CALLER_SHARE)
        self._turns: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
        self._nobodys = self._argon2.hash(secrets.token_hex())

    @asynccontextmanager
    async def place(self, caller: Hashable) -> AsyncIterator[None]:
        """A place to `hash` and `check` in, for an address or an account, when it has its turn.

        Raises Unavailable when the caller has its share of them, or none is free.
        """
        with self._places.one_more(caller):
            async with self._turns.setdefault(caller, asyncio.Semaphore(_CALLER_AT_ONCE)):
                yield

    async def hash(self, password: str) -> str:
        """The hash to keep."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._argon2.hash, normalise(password))

    async def check(self, password: str, kept: str | None) -> bool:
        """Whether `password` is the one that `kept` was made of.

        Takes as long when nothing is kept, so that time does not tell which
        accounts exist.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._check, normalise(password), kept)

    def is_outdated(self, kept: str) -> bool:
        """Whether `kept` was made with other parameters than are used now."""
        return self._argon2.check_needs_rehash(kept)

    def close(self) -> None:
        """Lets running work end and drops what waits."""
        self._threads.shutdown(cancel_futures=True)

    def _check(self, password: str, kept: str | None) -> bool:
        try:
            self._argon2.verify(kept or self._nobodys, password)
        except VerifyMismatchError:
            return False
        return kept is not None
