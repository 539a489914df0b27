"""Headers that OpenAI's clients read, beside those that all clients do.

Source: OpenAI, "Rate limits" and "Debugging requests" (2026); openai-python, `_should_retry`.
"""

import time

from mesh.calls.call import Call
from mesh.status import Description


def of_answer(call: Call) -> list[tuple[str, str]]:
    """Milliseconds until an answer begins."""
    ms = round((time.perf_counter() - call.began) * 1000)
    return [("openai-processing-ms", str(ms))]


def of_error(call: Call, described: Description) -> list[tuple[str, str]]:
    """The same, and when to come again, or that it is no use."""
    headers = of_answer(call)
    if described.retry_after_ms is not None:
        headers.append(("retry-after-ms", str(described.retry_after_ms)))
    if described.is_final:
        headers.append(("x-should-retry", "false"))
    return headers


def of_limit(kind: str, limit: int, left: int, reset_seconds: int) -> list[tuple[str, str]]:
    """What is left of a limit a minute of `kind`, `requests` or `tokens`."""
    return [
        (f"x-ratelimit-limit-{kind}", str(limit)),
        (f"x-ratelimit-remaining-{kind}", str(left)),
        (f"x-ratelimit-reset-{kind}", f"{reset_seconds}s"),
    ]
