"""The most that a request can cost, before anybody has counted its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from services.chat.domain.models import Model, OutputLimit
from services.chat.domain.provider import Prompt, Relay
from services.chat.domain.rows import Opening
from services.chat.domain.tokens import KINDS, Basis, KindPrices, TokenBounds, Tokens

_TOKENS_PRICED = 1_000_000
NOTHING_GIVEN_UP = Tokens(0, 0, Basis.CRASH)
# What a provider may read besides what it was sent: templates, a system prompt of its own.
_MOST_ADDED_TOKENS = 8_192


def bounds_of(prompt: Prompt | Relay, models: Sequence[Model]) -> TokenBounds:
    """The most tokens that are sent, and that may be written, whichever of `models` answers."""
    most = max(
        model.max_output_tokens
        if model.takes.output_limit is OutputLimit.NONE
        else prompt.limit(model.max_output_tokens)
        for model in models
    )
    return TokenBounds(prompt.bound, most * prompt.choices, audio=prompt.sounds)


def cost_of(tokens: Tokens, opening: Opening) -> int:
    """Nano-USD of `tokens` at the prices of a generation, rounded up."""
    prices, kinds = KindPrices.decode(opening.kind_prices), tokens.kinds
    exact = tokens.prompt * opening.prompt_price + tokens.completion * opening.completion_price
    for kind, plain in zip(KINDS, _plain(opening), strict=True):
        own = getattr(prices, kind)
        exact += getattr(kinds, kind) * (own - plain) if own is not None else 0
    return -(-exact // _TOKENS_PRICED)


def _plain(opening: Opening) -> tuple[int, ...]:
    """What each kind costs that has no price of its own."""
    prompt, completion = opening.prompt_price, opening.completion_price
    return prompt, prompt, completion, prompt, completion


@dataclass(frozen=True, slots=True)
class Price:
    """What a request may cost: nano-USD for a million tokens, and how many there can be.

    Where it is not `limited`, one of the models takes no limit, and has to be watched. Of a task
    that is begun anew, what was `given_up` is paid too.
    """

    bounds: TokenBounds
    prompt_price: int
    completion_price: int
    choices: int
    limited: bool
    given_up: Tokens = NOTHING_GIVEN_UP

    @classmethod
    def highest(
        cls,
        prompt: Prompt | Relay,
        models: Sequence[Model],
        given_up: Tokens = NOTHING_GIVEN_UP,
    ) -> Self:
        """The price of `prompt` at the dearest of the models that may answer it."""
        bounds = bounds_of(prompt, models)
        read = [model.highest_prompt_price for model in models]
        written = [model.highest_completion_price for model in models]
        if bounds.audio:
            read += [model.kind_prices.audio_prompt or 0 for model in models]
            written += [model.kind_prices.audio_completion or 0 for model in models]
        return cls(
            bounds,
            max(read),
            max(written),
            prompt.choices,
            # What is answered whole can't be watched, whatever it takes.
            prompt.whole or all(m.takes.output_limit is not OutputLimit.NONE for m in models),
            given_up,
        )

    def of(self, completion_tokens: int) -> int:
        """Nano-USD, with a reply of so many tokens; rounded up."""
        exact = self._unwritten + completion_tokens * self.completion_price
        return -(-exact // _TOKENS_PRICED)

    def tokens_for(self, amount: int) -> int:
        """How many tokens of a reply `amount` nano-USD pay for, of all choices together."""
        if not self.completion_price:
            return self.bounds.completion
        left = amount * _TOKENS_PRICED - self._unwritten
        return max(min(left // self.completion_price, self.bounds.completion), 0)

    @property
    def _unwritten(self) -> int:
        """What is paid before the reply has a token, in nano-USD for a million."""
        read = self.bounds.prompt + self.given_up.prompt
        return read * self.prompt_price + self.given_up.completion * self.completion_price


def believed(counted: Tokens, bounds: TokenBounds, opening: Opening, held: int | None) -> Tokens:
    """What of `counted` can be so, and is charged; less than that has the basis CAPPED.

    A provider may read a little more than it was sent, but nobody pays more than was `held`
    for them, in nano-USD.
    """
    added = replace(bounds, prompt=bounds.prompt + _MOST_ADDED_TOKENS)
    tokens = added.believed(counted)
    if held is not None and cost_of(tokens, opening) > held:
        return bounds.believed(tokens)
    return tokens
