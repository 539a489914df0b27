"""JSON that a strict reader refuses, read for what can be read."""

import json

# No number that means anything is longer; int() takes seconds for the longest.
_MAX_DIGITS = 19


def loads(text: bytes) -> object:
    """What is in `text`; bytes that are no UTF-8 are U+FFFD, halves of a pair stay halves.

    A number too large for 64 bits is the largest of them. Raises ValueError for what is no JSON,
    or nested too deep.
    """
    try:
        return _decoder.decode(text.decode("utf-8-sig", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def whole_characters(text: str) -> str:
    """`text` with the halves of surrogate pairs joined, and those that are alone as U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def dumps(value: object) -> bytes:
    """`value` as JSON in ASCII, so that halves of characters stay what they are.

    Raises ValueError for what is nested too deep.
    """
    try:
        return json.dumps(value, separators=(",", ":")).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None


def _int(digits: str) -> int:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    return -(1 << 63) if digits.startswith("-") else (1 << 63) - 1


_decoder = json.JSONDecoder(parse_int=_int, strict=False)
