"""The most that a request can cost, before anybody has counted its tokens."""

from dataclasses import dataclass
from typing import Self

from services.chat.domain.models import Model
from services.chat.domain.provider import Prompt, Relay

_TOKENS_PRICED = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """What a request may cost: nano-USD for a million tokens, and how many there can be.

    A token is a byte or more of a prompt, so its bytes bound its tokens. A reply has
    `most` tokens; where it is asked for `whole`, nobody can stop it on the way.
    """

    prompt_tokens: int
    prompt_price: int
    completion_price: int
    most: int
    whole: bool

    @classmethod
    def highest(cls, prompt: Prompt | Relay, models: list[Model]) -> Self:
        """The price of `prompt` at the dearest of the models that may answer it."""
        return cls(
            prompt.bound,
            max(model.prompt_price for model in models),
            max(model.completion_price for model in models),
            prompt.most_tokens(max(model.max_output_tokens for model in models)),
            prompt.whole,
        )

    def of(self, completion_tokens: int) -> int:
        """Nano-USD, with a reply of so many tokens; rounded up."""
        exact = self.prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return -(-exact // _TOKENS_PRICED)
