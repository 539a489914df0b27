"""Reads the form of a token request (RFC 6749, sections 4.3.2 and 6)."""

from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from mesh import errors

_TYPE = "application/x-www-form-urlencoded"
_MOST_FIELDS = 20
# As long as the contract lets the same fields be elsewhere.
_LONGEST = {"username": 254, "password": 256, "refresh_token": 200}


@dataclass(frozen=True, slots=True)
class PasswordGrant:
    """Start a session. `username` may be an email."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class RefreshGrant:
    """Refresh a session."""

    refresh_token: str = field(repr=False)


def read(content_type: str, data: bytes) -> PasswordGrant | RefreshGrant:
    """What a form asks for. Raises InvalidRequest that names the field that is wrong.

    Fields that are not known are passed over, as RFC 6749 wants it.
    """
    if content_type.partition(";")[0].strip().lower() != _TYPE:
        raise _invalid("form", f"send it as {_TYPE}")
    fields = _fields(data)
    match fields.get("grant_type", "password"):
        case "password":
            return PasswordGrant(_text(fields, "username"), _text(fields, "password"))
        case "refresh_token":
            return RefreshGrant(_text(fields, "refresh_token"))
        case _:
            raise _invalid("grant_type", "must be password or refresh_token")


def _fields(data: bytes) -> dict[str, str]:
    """The fields that have a value; without one, a field counts as left out."""
    try:
        pairs = parse_qsl(data.decode(), errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise _invalid("form", f"not a form in UTF-8 of at most {_MOST_FIELDS} fields") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name in fields if [key for key, _ in pairs].count(name) > 1)
        raise _invalid(twice if twice in (*_LONGEST, "grant_type") else "form", "given twice")
    return fields


def _text(fields: dict[str, str], name: str) -> str:
    text = fields.get(name, "")
    if not text:
        raise _invalid(name, "required")
    if len(text) > _LONGEST[name]:
        raise _invalid(name, f"must have at most {_LONGEST[name]} characters")
    return text


def _invalid(name: str, text: str) -> errors.InvalidRequest:
    return errors.invalid(name, text, reason="INVALID_FORM")
