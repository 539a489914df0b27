"""How slow this machine is now, by which limits of time in tests are stretched.

Limits are written for the machine that `REFERENCE_S` was measured on, idle. A slower machine,
or one that others keep busy, gets as much more time as the same work takes there.
"""

import hashlib
import time

REFERENCE_S = 0.016
"""What `_work` takes on one core of the 2-core machine of CI, with nothing beside it."""
MAX_FACTOR = 10.0
"""Above this a test is not slow but stuck."""
_KEPT_S = 2.0
_SAMPLES = 3

_measured_at = -_KEPT_S
_factor = 1.0


def factor() -> float:
    """How many times longer work takes now, 1 to `MAX_FACTOR`; measured every 2 s at most.

    A measurement holds the caller up for about 70 ms: ask when a limit is over, not before.
    """
    global _measured_at, _factor
    if time.monotonic() - _measured_at > _KEPT_S:
        # The slowest counts: what waits for its turn is seen in few of them.
        slowest = max(_work() for _ in range(_SAMPLES))
        _factor = min(max(slowest / REFERENCE_S, 1.0), MAX_FACTOR)
        _measured_at = time.monotonic()
    return _factor


def patient(seconds: float) -> float:
    """A limit of time for this machine as it is now."""
    return seconds * factor()


def is_over(seconds: float, limit: float) -> bool:
    """Whether something took longer than the limit, for this machine; measured only if it did."""
    return seconds > limit and seconds > patient(limit)


def _work() -> float:
    """How many seconds a piece of work takes."""
    began = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"khesht", b"patience", 60_000)
    return time.perf_counter() - began
