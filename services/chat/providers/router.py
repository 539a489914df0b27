"""Finds who answers (temporary)."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from services.chat.domain.models import Model
from services.chat.domain.provider import Answering, Part, Prompt, Provider, Relay, Report


@dataclass(slots=True)
class Router:
    """Temporary."""

    providers: Mapping[str, Provider]

    async def stream(
        self, model: Model, prompt: Prompt | Relay
    ) -> AsyncGenerator[Answering | Part | Report]:
        """Streams."""
        yield Answering(model)
        async for part in self.providers[model.provider].stream(prompt):
            yield part
