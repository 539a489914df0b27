"""Leaves alone who failed several times in a row, and lets one call in to see whether that is over."""

import time


class Breaker:
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

    def enter(self) -> object | None:
        """Lets a call pass that `wait` lets pass: what to `leave` with, where it is a trial."""
        self._trial = object() if self.is_open else self._trial
        return self._trial if self.is_open else None

    def leave(self, trial: object) -> None:
        """Ends a trial, however it ended: one that was cancelled said nothing."""
        if self._trial is trial:
            self._trial = None

    def succeeded(self) -> None:
        """Closes it."""
        self._failed = 0
        self._trial = None

    def failed(self) -> None:
        """Counts a failure, of which enough in a row open it."""
        self._failed += 1
        # Calls that began while it was closed may end later, and prolong nothing.
        if self._failed == self._most or self._trial is not None:
            self._until = time.monotonic() + self._pause
