"""Which passwords may be chosen (NIST SP 800-63B-4, section 3.1.1.2)."""

import unicodedata

from mesh import errors
from services.auth.domain.known_passwords import KNOWN, WORDS

_SHORTEST = 8
_SHORTEST_IN_PRODUCTION = 15


def normalise(password: str) -> str:
    """The same text for all ways to type the same characters (NFKC). Cuts nothing off."""
    return unicodedata.normalize("NFKC", password)


class Policy:
    """Refuses weak passwords: by length and, in production, by being well known."""

    def __init__(self, *, production: bool) -> None:
        """Takes whether real people depend on this installation."""
        self._shortest = _SHORTEST_IN_PRODUCTION if production else _SHORTEST
        self._strict = production

    def check(self, field: str, password: str, names: tuple[str | None, ...]) -> None:
        """Raises InvalidRequest for `field` unless `password` may be used by who has `names`."""
        password = normalise(password)
        if len(password) < self._shortest:
            raise _weak(field, f"must have at least {self._shortest} characters")
        if not self._strict:
            return
        folded = password.casefold()
        if folded in {part.casefold() for name in names if name for part in (name, _local(name))}:
            raise _weak(field, "must not be the username or the email")
        if folded in KNOWN or _letters(folded) in WORDS or _repeats(folded):
            raise _weak(field, "is too well known; choose another")


def _weak(field: str, text: str) -> errors.InvalidRequest:
    return errors.invalid(field, text, reason="WEAK_PASSWORD")


def _local(email: str) -> str:
    return email.partition("@")[0]


def _letters(text: str) -> str:
    """What is left of a well-known word that was made longer by digits and signs."""
    return "".join(character for character in text if character.isalpha())


def _repeats(text: str) -> bool:
    """Whether `text` is a shorter text again and again."""
    return text in (text + text)[1:-1]
