"""The model that is always there: says the last turn back, word by word.

It lets everything be tried without a provider's key. It counts words as tokens.
"""

import asyncio
import re
from collections.abc import AsyncGenerator

from services.chat.domain.provider import Part, Prompt, Report

# A word and the space behind it, so that the words joined are the text.
_WORD = re.compile(r"\s*\S+\s*?(?=\s\S|$)|\s+")
_PAUSE = 0.02
_LONGEST = 2.0


class Echo:
    """Streams at 50 words a second, or faster when that took more than 2 seconds."""

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Part | Report]:
        """The last turn in words; at most `max_tokens` of them."""
        words = _WORD.findall(prompt.turns[-1].content)
        told = words[: prompt.max_tokens]
        pause = min(_PAUSE, _LONGEST / max(len(told), 1))
        for word in told:
            await asyncio.sleep(pause)
            yield Part(word, 1)
        read = sum(len(turn.content.split()) for turn in prompt.turns)
        reason = "stop" if len(told) == len(words) else "length"
        yield Report(reason, prompt.model, (read, len(told)))
