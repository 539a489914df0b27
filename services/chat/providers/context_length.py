"""What providers say of a conversation that is longer than their model reads.

In the words of OpenAI, Azure, Groq, Mistral, OpenRouter, DeepSeek, xAI, Gemini, Anthropic, Hugging
Face (TGI), vLLM, llama.cpp and LM Studio.
"""

import re

from mesh import errors
from services.chat.domain.history import ContextLength

_CODES = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG = re.compile(
    r"context[ _](?:length|size|window)|maximum (?:prompt|context) length|prompt is too long"
    r"|too many tokens|token count .*exceeds|`inputs` (?:tokens|must have)|reduce the length"
)
_NUMBER = r"(\d[\d,]*)"
_WINDOWS = tuple(
    re.compile(each.replace("#", _NUMBER))
    for each in (
        r"(?:context|prompt) (?:length|size|window)\D{0,20}#",
        r"with # maximum context",
        r"must be <= #",
        r"> # maximum",
        r"tokens allowed \(#\)",
        r"cannot exceed #",
    )
)
_COUNTS = tuple(
    re.compile(each.replace("#", _NUMBER))
    for each in (
        r"resulted in #",
        r"\(# (?:in|of) (?:the )?(?:messages|text input|input|prompt)",
        r"contains? # tokens",
        r"request \(# tokens",
        r"too long: #",
        r"token count \(#\)",
        r"has # input tokens",
        r"given: #",
        r"the first # tokens",
    )
)
# What is less is no window of a model, but another number.
_MIN_WINDOW_TOKENS = 256


def told(error: errors.MeshError) -> ContextLength | None:
    """What a refusal says of the context's length; None where it is about something else."""
    if not isinstance(error, errors.FailedPrecondition | errors.InvalidRequest):
        return None
    text = error.message.lower()
    if error.metadata.get("provider_code") not in _CODES and not _TOO_LONG.search(text):
        return None
    window = _first(_WINDOWS, text)
    return ContextLength(
        window if window is not None and window >= _MIN_WINDOW_TOKENS else None,
        _first(_COUNTS, text),
    )


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    found = next((match for each in patterns if (match := each.search(text))), None)
    return int(found[1].replace(",", "")[:12]) if found else None
