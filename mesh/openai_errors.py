"""What OpenAI's clients read of an error, beyond what all others do.

Source: OpenAI, "Error codes" and "Rate limits" (2026), and what its packages for Python and
Node look at.
"""

from collections.abc import Mapping

QUOTA = "insufficient_quota"
"""The code of an error that only money mends."""

# By the reason of an error; those that are not here have no code.
_CODES = {
    "MISSING_CREDENTIALS": "invalid_api_key",
    "INVALID_CREDENTIALS": "invalid_api_key",
    "KEY_REVOKED": "invalid_api_key",
    "KEY_EXPIRED": "invalid_api_key",
    "ACCOUNT_ENDED": "invalid_api_key",
    "SESSION_ENDED": "invalid_api_key",
    "PROVIDER_KEY_REFUSED": "invalid_api_key",
    "MODEL_NOT_FOUND": "model_not_found",
    "MODEL_NOT_ALLOWED": "model_not_found",
    "MODEL_NOT_CONFIGURED": "model_not_found",
    "RATE_LIMITED": "rate_limit_exceeded",
    "TOKENS_RATE_LIMITED": "rate_limit_exceeded",
    "PROVIDER_RATE_LIMITED": "rate_limit_exceeded",
    "BUDGET_EXCEEDED": QUOTA,
    "UNKNOWN_PATH": "unknown_url",
}


def code(reason: str, metadata: Mapping[str, str]) -> str | None:
    """The code that clients switch on: the provider's own where it gave one."""
    return metadata.get("provider_code") or _CODES.get(reason)


def param(reason: str, metadata: Mapping[str, str], fields: list[str]) -> str | None:
    """The field to blame: what the provider names, or the first of `fields` that are wrong."""
    told = metadata.get("provider_param")
    if told or fields:
        return told or fields[0] or None
    return "model" if _CODES.get(reason) == "model_not_found" else None
