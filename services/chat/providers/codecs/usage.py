"""What a provider counted, in the forms that providers of OpenAI's wire format use for it."""

from typing import Any

from services.chat.domain.tokens import Basis, TokenKinds, Tokens

# No count of tokens is higher; what claims to be is taken for this, and not believed later.
_MOST_TOKENS = (1 << 31) - 1


def tokens_of(usage: object) -> Tokens | None:
    """The tokens in a `usage`, whatever is in it; None where nothing was counted.

    Names as of OpenAI's API reference (Chat Completions and Responses); cached tokens also as
    DeepSeek, Moonshot and Anthropic name them. Where `total_tokens` is more than what was read
    and written, the rest is thought that was not counted as written (xAI, Gemini).
    """
    if not isinstance(usage, dict):
        return None
    prompt = _first(usage, "prompt_tokens", "input_tokens")
    completion = _first(usage, "completion_tokens", "output_tokens")
    if not prompt and not completion:
        return None
    read = _details(usage, "prompt_tokens_details", "input_tokens_details")
    written = _details(usage, "completion_tokens_details", "output_tokens_details")
    reasoning = _first(written, "reasoning_tokens") or _first(usage, "reasoning_tokens")
    beside = _count(usage.get("total_tokens")) - prompt - completion
    if beside > 0:
        completion, reasoning = completion + beside, reasoning or beside
    kinds = TokenKinds(
        cached_read=_first(read, "cached_tokens")
        or _first(usage, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens"),
        cached_write=_first(read, "cache_write_tokens", "cache_creation_tokens")
        or _first(usage, "cache_creation_input_tokens"),
        reasoning=reasoning,
        audio_prompt=_first(read, "audio_tokens"),
        audio_completion=_first(written, "audio_tokens"),
    )
    return Tokens(prompt, completion, Basis.PROVIDER, kinds.within(prompt, completion))


def _details(usage: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        details = usage.get(name)
        if isinstance(details, dict):
            return details
    return {}


def _first(counts: dict[str, Any], *names: str) -> int:
    """The first of these counts that is above 0, or 0."""
    return next((count for name in names if (count := _count(counts.get(name)))), 0)


def _count(value: object) -> int:
    """A count that may be a number, or be written as one; 0 for what is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, float) and value == value:
        value = int(max(min(value, _MOST_TOKENS), 0))
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, _MOST_TOKENS), 0)
    return 0
