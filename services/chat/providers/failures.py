"""What the failure of a provider means for our caller, and what of its text they may read."""

import re

from mesh import errors
from services.chat.domain.provider import (
    Account,
    DeclinedForNow,
    OwnKey,
    QuotaSpent,
    RateLimited,
    too_large,
)
from services.chat.providers.codecs.failure import Failure

_MAX_TEXT_CHARACTERS = 300
_MAX_NAME_CHARACTERS = 100
_MAX_READ_CHARACTERS = 1_000
_WAIT_UNLESS_SAID_S = 1.0
# Statuses that say that the request itself is wrong.
_OF_THE_REQUEST = frozenset({400, 413, 422, 451})
# Statuses of a server, or of a proxy before it, that did nothing and may do so soon.
_PASSING = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# What looks like a key, a token, or the name of an account, whoever's it is.
_SECRET = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|nvapi|r8|tgp|fw|csk|pplx|ghp|glpat|org|proj)[-_]"
    r"(?=[\w*.+/=-]*[\d*A-Z])[\w*.+/=-]{6,}"
    r"|\bAIza[\w-]{10,}"
    r"|\beyJ[\w-]+(?:\.[\w-]*)*"
    r"|(?i:\bbearer\s+)\S+"
    r"|(?i:\b(?:api[-_ ]?key|token|secret|password|authorization)\s*[=:]\s*)\S+"
    r"|\b(?=[\w+=]*\d)(?=[\w+=]*[A-Za-z])[\w+=]{32,}"
)
_HIDDEN = "…"


class Failures:
    """The errors of one provider."""

    def __init__(self, account: Account) -> None:
        """Takes its name, and our key there, which is never told."""
        self._name = account.name
        self._key = account.key

    def of(self, failure: Failure, own: OwnKey = None) -> errors.MeshError:
        """The error of what the provider says, of a call by a caller's `own` key or by ours.

        Its text, code and field are passed on without what looks like a key, but for what it says
        of our account there.
        """
        status, name = failure.status, self._name
        said = self._shown(failure.message, own, _MAX_TEXT_CHARACTERS)
        about = self._about(failure, own)
        wait = failure.retry_after
        if status in (401, 402, 403) and own is None:
            return errors.Unavailable(
                "PROVIDER_CREDENTIALS",
                f"{name} refused this installation's key",
                metadata=self._named(),
            )
        if status in (401, 403):
            text = _with(f"{name} refused this key", said)
            return errors.Unauthenticated("PROVIDER_KEY_REFUSED", text, metadata=about)
        if status == 402:
            about.setdefault("provider_code", "insufficient_quota")
            text = _with(f"{name} wants this key's account to be paid", said)
            return QuotaSpent("PROVIDER_RATE_LIMITED", text, metadata=about)
        if status == 404:
            about.setdefault("provider_code", "model_not_found")
            text = f"{name}: {said or 'it has no such model'}"
            return errors.NotFound("PROVIDER_MODEL_NOT_FOUND", text, metadata=about)
        if status == 429:
            text = _with(f"{name} is rate limiting", said)
            if failure.code in _QUOTA:  # No short wait helps.
                return QuotaSpent("PROVIDER_RATE_LIMITED", text, metadata=about, retry_after=wait)
            wait = _WAIT_UNLESS_SAID_S if wait is None else wait
            return RateLimited("PROVIDER_RATE_LIMITED", text, metadata=about, retry_after=wait)
        if status in _OF_THE_REQUEST:
            text = f"{name}: {said or f'refused the request with status {status}'}"
            return errors.FailedPrecondition("PROVIDER_REFUSED", text, metadata=about)
        if status is None:
            return self.broke_off(said, about)
        failed = DeclinedForNow if status in _PASSING else errors.Unavailable
        text = _with(f"{name} failed with status {status}", said)
        return failed("PROVIDER_UNAVAILABLE", text, metadata=about, retry_after=wait)

    def broke_off(self, said: str = "", about: dict[str, str] | None = None) -> errors.Unavailable:
        """The error of a provider that stopped before its end, or sent no protocol of ours."""
        return errors.Unavailable(
            "PROVIDER_BROKE_OFF",
            _with(f"{self._name} broke off before the end", said),
            metadata=about or self._named(),
        )

    def too_large(self) -> errors.FailedPrecondition:
        """The error of a reply that grew longer than any may be."""
        return too_large(self._name)

    def late(self, text: str) -> errors.DeadlineExceeded:
        """The error of a provider that took too long for something."""
        return errors.DeadlineExceeded(
            "PROVIDER_TIMEOUT", f"{self._name} {text}", metadata=self._named()
        )

    def _about(self, failure: Failure, own: OwnKey) -> dict[str, str]:
        """What varies in an error, and what clients of OpenAI's format switch on."""
        code = self._shown(failure.code, own, _MAX_NAME_CHARACTERS)
        param = self._shown(failure.param, own, _MAX_NAME_CHARACTERS)
        named = {"provider_code": code, "provider_param": param}
        return self._named() | {name: value for name, value in named.items() if value}

    def _shown(self, text: str, own: OwnKey, most: int) -> str:
        """`text` in one line, of `most` characters, without keys."""
        for key in (own, self._key):
            if key:
                text = text.replace(key, _HIDDEN)
        text = text[:_MAX_READ_CHARACTERS]  # Looking for keys takes the square of its length.
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        shown = _SECRET.sub(_HIDDEN, line)[:most]
        # Errors travel in headers, of which clients of gRPC take 8 KiB, and each form of them escapes.
        return shown.encode()[: 2 * most].decode(errors="ignore").strip()

    def _named(self) -> dict[str, str]:
        return {"provider": self._name}


def _with(text: str, said: str) -> str:
    return f"{text}: {said}" if said else text
