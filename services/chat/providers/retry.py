"""When a call that came to nothing is made again at the same provider, and after how long."""

import random

from mesh import errors
from services.chat.domain.provider import Declined, Unreached

# Seconds before the first retry, doubled for each further one, and the longest worth waiting.
_PAUSE_S = 0.25
_MAX_PAUSE_S = 2.0
# Of ten calls one may be repeated, so that who is overloaded gets at most 1.1 calls for
# one; ten repeats may be saved up.
_EARNED = 0.1
_MAX_SAVED = 10.0


class Retry:
    """The repeats that one provider's calls have earned."""

    def __init__(self, retries: int) -> None:
        """Allows `retries` for a call."""
        self.retries = retries
        self._saved = _MAX_SAVED

    def earn(self) -> None:
        """Counts a call."""
        self._saved = min(self._saved + _EARNED, _MAX_SAVED)

    def spend(self) -> None:
        """Counts a repeat."""
        self._saved -= 1

    def pause(self, error: errors.MeshError, tried: int) -> float | None:
        """Seconds until another try, after so many repeats; None where there must be none."""
        if tried == self.retries or not isinstance(error, Declined | Unreached) or self._saved < 1:
            return None
        pause = _PAUSE_S * 2**tried * random.uniform(0.5, 1)  # noqa: S311 - guards nothing
        pause = max(pause, error.retry_after or 0)
        return pause if pause <= _MAX_PAUSE_S else None
