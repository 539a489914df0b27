"""How long a provider says to wait, in all forms that providers have for it."""

import math
import re
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 3600.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?(ms|s|m|h|d)(?![a-z])")
_IN_WORDS = re.compile(
    r"(?i)(?:try|retry)(?: again| after)? (?:in|after) ((?:[\d.]+ ?(?:ms|s|m|h)\s?)+)"
)
_RESETS = "x-ratelimit-reset"
_REMAINING = "x-ratelimit-remaining"
# A number of seconds that is longer is a time since 1970, in seconds or milliseconds.
_A_TIME_S = 1e9


def of_headers(headers: Mapping[str, str], *, is_limited: bool) -> float | None:
    """Seconds to wait, 0 to 3600; None where nothing readable says so.

    By `retry-after-ms` (Azure) or Retry-After, in seconds or as a date (RFC 9110, 10.2.3); of a
    call that `is_limited` also by `x-ratelimit-reset…` (OpenAI, Groq, OpenRouter): of the limits
    that have nothing remaining the one that lasts longest, or else the one that ends first.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    if (ms := _number(named.get("retry-after-ms", ""))) is not None:
        return bounded(ms / 1000)
    if (given := named.get("retry-after")) and (wait := _span(given)) is not None:
        return wait
    if not is_limited:
        return None
    resets = {
        name.removeprefix(_RESETS): wait
        for name, value in named.items()
        if name.startswith(_RESETS) and (wait := _span(value)) is not None
    }
    spent = [wait for of, wait in resets.items() if named.get(_REMAINING + of) in ("0", "0.0")]
    return max(spent) if spent else min(resets.values(), default=None)


def of_text(text: str) -> float | None:
    """Seconds in words such as "Please try again in 1m2.5s"; None where there are none."""
    said = _IN_WORDS.search(text[:1000])
    return _span(said[1]) if said else None


def bounded(seconds: float) -> float | None:
    """`seconds` from 0 to 3600; None for what is no number."""
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_WAIT_S)


def _span(value: str) -> float | None:
    """Seconds in a number, a span such as "6m0.5s", or until a date."""
    value = value[:100].strip().strip('"')
    if (number := _number(value)) is not None:
        if number >= 1000 * _A_TIME_S:
            number /= 1000
        return bounded(number - time.time() if number >= _A_TIME_S else number)
    spans = _SPAN.findall(value)
    if spans and not _SPAN.sub("", value).strip():
        return bounded(sum(float(count) * _UNITS_S[unit] for count, unit in spans))
    try:
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return bounded(date.timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
