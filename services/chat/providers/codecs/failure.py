"""What a provider says went wrong, in the shapes that providers have for it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from services.chat.providers import retry_after
from services.chat.providers.codecs import lenient

Fields = Mapping[str, object]

# Where providers have the text, the best first.
_TEXTS = ("message", "msg", "detail", "error_message", "error_msg", "error", "errors", "title")
_CODES = ("code", "error_code", "errorCode")
_STATUSES = (*_CODES, "status_code", "status")
_TYPES = ("type", "error_type", "__type")
_KINDS = (*_STATUSES, *_TYPES)
_MAX_DEPTH = 4
_MAX_TEXTS = 5
_MAX_TEXT_CHARACTERS = 10_000

# HTTP status by what stands in a code or, for the first of them, in a text; the first that fits.
_CLEAR = (
    ("context_length", 400),
    ("context_window", 400),
    ("content_policy", 400),
    ("content_filter", 400),
    ("moderation", 400),
    ("rate_limit", 429),
    ("ratelimit", 429),
    ("too_many_requests", 429),
    ("quota", 429),
    ("throttl", 429),
    ("resource_exhausted", 429),
    ("insufficient_balance", 402),
    ("insufficient_credit", 402),
    ("insufficient_funds", 402),
    ("payment_required", 402),
    ("api_key", 401),
    ("unauthenticated", 401),
    ("unauthorized", 401),
    ("overloaded", 503),
    ("unavailable", 503),
    ("bad_gateway", 502),
    ("timed_out", 504),
    ("timeout", 504),
    ("internal_error", 500),
    ("server_error", 500),
)
_OF_CODES = (
    *_CLEAR,
    ("authentication", 401),
    ("permission", 403),
    ("forbidden", 403),
    ("access_denied", 403),
    ("country", 403),
    ("suspended", 403),
    ("deactivated", 401),
    ("billing", 402),
    ("limit_reached", 429),
    ("not_found", 404),
    ("not_exist", 404),
    ("no_such", 404),
    ("unknown_model", 404),
    ("too_large", 413),
    ("capacity", 503),
    ("internal", 500),
    ("api_error", 500),
    ("unprocessable", 422),
    ("validation", 422),
    ("bad_request", 400),
    ("invalid", 400),
    ("unsupported", 400),
    ("not_supported", 400),
    ("missing", 400),
    ("unknown_parameter", 400),
    ("too_long", 400),
    ("exceed", 400),
    ("above_max", 400),
    ("below_min", 400),
    ("out_of_range", 400),
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD = re.compile(r"[^a-z0-9]+")
_WRONG_KEY = re.compile(
    r"(?i)(incorrect|invalid|expired|missing|no)\b.{0,20}\bapi[ _-]?key"
    r"|\bapi[ _-]?key\b.{0,20}\b(incorrect|invalid|expired|not valid)"
)
_ERROR = re.compile("(?i)error|exception")
_MARKUP = re.compile(r"(?i)\s*(<!doctype|<html|<\?xml|<head|<body)")


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as its provider tells it.

    `status` is the HTTP status of its kind, None where nothing says it. `message`, `code` and
    `param` are the provider's own, "" for none, and hostile.
    """

    status: int | None
    message: str = ""
    code: str = ""
    param: str = ""
    # Seconds to wait, where it says so.
    retry_after: float | None = None


class Failed(Exception):
    """A provider answered with an error."""

    def __init__(self, failure: Failure) -> None:
        """Takes what it says."""
        super().__init__()
        self.failure = failure


def of_body(status: int, body: bytes) -> Failure:
    """What an answer of a `status` of 400 and above says, whatever its form."""
    try:
        value = lenient.loads(body)
    except ValueError:
        value = _of_events(body)
    if isinstance(value, dict | list):
        return _judged(status, of_value(value))
    text = value if isinstance(value, str) else body.decode(errors="replace")
    # A plain text is for people where the request was wrong, and a trace or a page elsewhere.
    is_told = 400 <= status < 500 and not _MARKUP.match(text)
    return _judged(status, Failure(None, text.strip()[:_MAX_TEXT_CHARACTERS] if is_told else ""))


def of_value(value: object) -> Failure:
    """What `value` says, which is taken for an error."""
    # Gemini has a list of one.
    if isinstance(value, list) and value and _fields(value[0]).get("error"):
        value = value[0]
    outer = value if isinstance(value, dict) else {}
    error = outer.get("error") or value
    inner = error if isinstance(error, dict) else {}
    message = _text(error) or _text(value)
    # OpenRouter quotes whom it asked.
    if isinstance(raw := _fields(inner.get("metadata")).get("raw"), str):
        message = f"{message}: {_text(_loaded(raw)) or raw}" if message else raw
    codes = [*map(inner.get, _CODES), *map(outer.get, _CODES)]
    code = next((name for each in codes if (name := _name(each))), "")
    kinds = [*map(inner.get, _KINDS), *map(outer.get, _KINDS)]
    status = next((s for each in kinds if (s := _status_of(each, _OF_CODES))), None)
    if status is None:
        status = _status_of(message, _CLEAR)
    if status in (None, 400) and _WRONG_KEY.search(message[:_MAX_TEXT_CHARACTERS]):
        status = 401
    param = _name(inner.get("param")) or _name(outer.get("param")) or _place(value)
    wait = retry_after.of_text(message)
    for each in (inner.get("retry_after"), outer.get("retry_after")):
        if isinstance(each, int | float) and not isinstance(each, bool):
            wait = retry_after.bounded(each)
    return Failure(status, message[:_MAX_TEXT_CHARACTERS], code, param, wait)


def of_answer(value: object, event: bytes = b"") -> Failure | None:
    """The error that an answer of status 200, or an event of its stream, is; None where it is none.

    `event` is the type of the event, "" for none.
    """
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict):
        return of_value(value) if event == b"error" else None
    fields: Fields = first
    choices = fields.get("choices")
    if fields.get("error"):
        return of_value(fields)
    if isinstance(choices, list) and choices:
        wrong = (each for each in choices if isinstance(each, dict) and each.get("error"))
        return next(map(of_value, wrong), None)
    if event == b"error" or "error" in (fields.get("object"), fields.get("type")):
        return of_value(fields)
    if fields.keys().isdisjoint(_TEXTS):
        return None
    told = of_value(fields)
    is_error = (
        any(_status_of(fields.get(name), _OF_CODES) for name in _STATUSES)
        or any(_ERROR.search(each) for each in map(fields.get, _TYPES) if isinstance(each, str))
        or fields.get("detail")
        or fields.get("status") == "error"
    )
    return told if told.message and is_error else None


def _judged(status: int, told: Failure) -> Failure:
    """What is told beside an HTTP `status`, which counts, but where more is known."""
    if status == 400 and told.status == 401:
        status = 401
    elif status == 403 and _status_of(told.message, _CLEAR) == 400:
        status = 400  # What was asked is forbidden, not who asks.
    elif status >= 500:  # Some answer 500 to all that is wrong.
        of_code = _status_of(told.code, _OF_CODES) or status
        status = of_code if of_code < 500 else status
    return replace(told, status=status)


def _of_events(body: bytes) -> object:
    """The data of the first event that has some, where `body` is a stream of them."""
    for line in body.splitlines():
        if line.startswith(b"data:") and (value := _loaded(line[5:].decode(errors="replace"))):
            return value
    return None


def _loaded(text: str) -> object:
    try:
        return lenient.loads(text.encode(errors="replace"))
    except ValueError:
        return None


def _fields(value: object) -> Fields:
    return value if isinstance(value, dict) else {}


def _text(value: object, depth: int = 0) -> str:
    """The text in `value`; of several, each with the place that it is about."""
    if isinstance(value, str):
        return value.strip()
    if depth == _MAX_DEPTH:
        return ""
    if isinstance(value, dict):
        text = next((t for name in _TEXTS if (t := _text(value.get(name), depth + 1))), "")
        place = _joined(value.get("loc"))
        return f"{place}: {text}" if place and text else text
    if isinstance(value, list):
        texts = (_text(each, depth + 1) for each in value[:_MAX_TEXTS])
        return "; ".join(text for text in texts if text)
    return ""


def _place(value: object) -> str:
    """The field that is wrong, as FastAPI names it: that of the first error."""
    errors = _fields(value).get("detail", value)
    first = errors[0] if isinstance(errors, list) and errors else errors
    return _joined(_fields(first).get("loc"))


def _joined(loc: object) -> str:
    if not isinstance(loc, list):
        return ""
    names = [str(each) for each in loc if isinstance(each, str | int)]
    return ".".join(names[1:] if names[:1] == ["body"] else names)


def _name(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


def _status_of(value: object, words: Iterable[tuple[str, int]]) -> int | None:
    """The HTTP status that a code stands for, in numbers or words."""
    if isinstance(value, str):
        value = value.strip()
        if not (value.isascii() and value.isdigit()):
            name = _NO_WORD.sub("_", _CAMEL.sub("_", value[:_MAX_TEXT_CHARACTERS]).lower())
            return next((status for word, status in words if word in name), None)
        value = int(value[:9])
    if isinstance(value, int | float) and not isinstance(value, bool) and 400 <= value < 600:
        return int(value)
    return None
