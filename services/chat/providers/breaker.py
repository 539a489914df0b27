"""Leaves alone who failed several times in a row, and lets one call in to see whether that is over."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import UUID

Caller = UUID | None


class Circuit:
    """Closed, until `failures` in a row; then open for `pause` seconds, and until one call succeeds."""

    def __init__(self, failures: int, pause: float) -> None:
        """Begins closed."""
        self._most = failures
        self._pause = pause
        self._failed = 0
        self._until = 0.0
        self._trial: object | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are kept away, but for a trial."""
        return self._failed >= self._most

    @property
    def wait(self) -> float:
        """Seconds until a call may pass; 0 for at once."""
        if not self.is_open:
            return 0.0
        left = self._until - time.monotonic()
        return max(left, 1.0) if self._trial is not None else max(left, 0.0)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """A call that `wait` lets pass; a trial, where it is open."""
        if not self.is_open:
            yield
            return
        trial = self._trial = object()
        try:
            yield
        finally:  # One that was cancelled said nothing, and makes room for another.
            if self._trial is trial:
                self._trial = None

    def failed(self) -> None:
        """Counts a failure, of which enough in a row open it."""
        self._failed += 1
        # Calls that began while it was closed may end later, and prolong nothing.
        if self._failed == self._most or self._trial is not None:
            self._until = time.monotonic() + self._pause


class Breaker:
    """The circuits of one provider: one for each caller that it failed, and one for all.

    That of a caller counts its failures; that of all counts callers, each once until one succeeds.
    So a provider is kept from those whose requests bring it down, and from all when it is down.
    """

    def __init__(self, failures: int, pause: float) -> None:
        """Begins closed. Opens for a caller, or for all, after `failures`, for `pause` seconds."""
        self._failures = failures
        self._pause = pause
        self._of_all = Circuit(failures, pause)
        # Of callers that failed since a call last succeeded: few, for then all are kept away.
        self._of: dict[Caller, Circuit] = {}

    @property
    def is_open(self) -> bool:
        """Whether it is open for all, or for each caller there was since a call last succeeded."""
        return self._of_all.is_open or (
            bool(self._of) and all(each.is_open for each in self._of.values())
        )

    def is_open_for(self, caller: Caller) -> bool:
        """Whether this caller is kept away, but for a trial."""
        return self._of_all.is_open or (caller in self._of and self._of[caller].is_open)

    def wait(self, caller: Caller) -> float:
        """Seconds until a call of this caller may pass; 0 for at once."""
        own = self._of.get(caller)
        return max(self._of_all.wait, own.wait if own is not None else 0.0)

    @contextmanager
    def entered(self, caller: Caller) -> Iterator[None]:
        """A call that `wait` lets pass."""
        with ExitStack() as entered:
            entered.enter_context(self._of_all.entered())
            if (own := self._of.get(caller)) is not None:
                entered.enter_context(own.entered())
            yield

    def succeeded(self) -> None:
        """Closes it, for all."""
        if self._of:
            self._of_all = Circuit(self._failures, self._pause)
            self._of = {}

    def failed(self, caller: Caller) -> None:
        """Counts a failure of a call of this caller."""
        own = self._of.get(caller)
        if own is None:
            own = self._of[caller] = Circuit(self._failures, self._pause)
            self._of_all.failed()
        elif self._of_all.is_open:  # A trial.
            self._of_all.failed()
        own.failed()
