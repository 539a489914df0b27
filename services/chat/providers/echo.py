"""The model that is always there, so that everything can be tried without a provider's key."""

import asyncio
from collections.abc import AsyncGenerator

from services.chat.domain.provider import Part, Prompt, Relay, Report
from services.chat.providers.codecs import echo

_PAUSE_S = 0.02
_MAX_ANSWER_S = 2.0


class Echo:
    """Says the last turn back at 50 words a second, or faster when that took more than 2 seconds."""

    async def stream(self, prompt: Prompt | Relay) -> AsyncGenerator[Part | Report]:
        """As `Provider.stream`. Raises InvalidRequest for turns that are more than text."""
        told = list(echo.answer(prompt))
        words = sum(1 for each in told if isinstance(each, Part) and each.text)
        pause = min(_PAUSE_S, _MAX_ANSWER_S / max(words, 1))
        for each in told:
            if isinstance(each, Part) and each.text:
                await asyncio.sleep(pause)
            yield each
