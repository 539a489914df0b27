"""The models file: which models there are, by which names, at which prices, and at whom."""

import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import msgspec

from mesh import errors
from mesh.time_limits import LONGEST_ANSWER_S
from services.chat.domain.tokens import KINDS, NO_KIND_PRICES, KindPrices

_NANO = 1_000_000_000
# USD for a million tokens; in nano-USD it has to fit in 63 bits.
_HIGHEST_PRICE = 10_000_000
# The cheapest models cost 0.01 and the dearest 600 USD for a million tokens (2026).
_IMPLAUSIBLY_LOW = Decimal("0.001")
_IMPLAUSIBLY_HIGH = 1_000
_PROVIDER_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Variables of these names are given to the services that call providers, and to no other.
_KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*_API_KEY|HF_TOKEN")

# Headers that say how a request is sent; their values are ours.
_OF_TRANSPORT = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}")

# Seconds that a provider may take, of the hour that an answer may have.
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=LONGEST_ANSWER_S)]


class OutputLimit(StrEnum):
    """The field by which a model takes its limit of tokens to write, if it takes one."""

    MAX_TOKENS = "max_tokens"
    MAX_COMPLETION_TOKENS = "max_completion_tokens"
    NONE = "none"


class SystemRole(StrEnum):
    """The role by which a model takes what it is told before all else, if it takes one."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Takes:
    """What a model takes of a request: the rest is left out, or said in another way.

    Without a `system_role` turns keep the role that they came with.
    """

    output_limit: OutputLimit = OutputLimit.MAX_TOKENS
    temperature: bool = True
    stream_options: bool = True
    system_role: SystemRole | None = None


TAKES_ALL = Takes()


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """Tokens of a picture: so many, and so many more for each tile of 512 by 512 pixels."""

    base: int = 85
    tile: int = 170


_IMAGE_TOKENS = ImageTokens()


@dataclass(frozen=True, slots=True)
class ModelTimeouts:
    """Seconds that a model has in place of its provider's, None for those of the provider.

    One that `thinks` has 10 minutes of silence and an hour in all, where nothing else is said.
    """

    first_byte: float | None = None
    idle: float | None = None
    total: float | None = None
    thinks: bool = False


AS_ITS_PROVIDER = ModelTimeouts()


@dataclass(frozen=True, slots=True)
class Model:
    """A model. Prices are nano-USD for a million tokens.

    `upstream` is what its provider calls it, "" for by its id; `fallback` are the ids of those that
    are asked in its place, in this order, when its provider can't answer.
    """

    id: str
    provider: str
    aliases: tuple[str, ...]
    max_output_tokens: int
    prompt_price: int
    completion_price: int
    upstream: str = ""
    fallback: tuple[str, ...] = ()
    kind_prices: KindPrices = NO_KIND_PRICES
    takes: Takes = TAKES_ALL
    image_tokens: ImageTokens = _IMAGE_TOKENS
    timeouts: ModelTimeouts = AS_ITS_PROVIDER
    # Tokens that it reads and writes together at most; None where nobody said so.
    context_window: int | None = None

    @property
    def highest_prompt_price(self) -> int:
        """Of a token read as text, whether it was cached or not."""
        kinds = self.kind_prices
        return max(self.prompt_price, kinds.cached_read or 0, kinds.cached_write or 0)

    @property
    def highest_completion_price(self) -> int:
        """Of a token written as text, whether it is shown or thought."""
        return max(self.completion_price, self.kind_prices.reasoning or 0)


class Listing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider in the file. What is left out is as the settings say, or as `Account` has it."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s?#]+$")] | None = None
    key_env: str | None = None
    key_prefix: str | None = None
    key_header: str | None = None
    query: dict[str, str] = {}
    connect: Annotated[float, msgspec.Meta(gt=0, le=50)] | None = None
    first_byte: _Seconds | None = None
    idle: _Seconds | None = None
    total: _Seconds | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    breaker_failures: Annotated[int, msgspec.Meta(ge=1, le=1_000)] | None = None
    breaker_pause: Annotated[float, msgspec.Meta(gt=0, le=600)] | None = None
    allow_private: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a key that would be given to other services too."""
        if self.key_env is not None and not _KEY_NAME.fullmatch(self.key_env):
            raise ValueError(
                f"key_env: {self.key_env} must end in _API_KEY;"
                " variables of such names reach no service that calls no provider"
            )
        if self.key_header and not _is_of_a_key(self.key_header):
            raise ValueError(f"key_header: {self.key_header} is no header for a key")


def _is_of_a_key(header: str) -> bool:
    return _HEADER_NAME.fullmatch(header) is not None and header.lower() not in _OF_TRANSPORT


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    provider: str
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)]
    prompt_price: Decimal
    completion_price: Decimal
    aliases: tuple[str, ...] = ()
    upstream: str = ""
    fallback: tuple[str, ...] = ()
    cached_read_price: Decimal | None = None
    cached_write_price: Decimal | None = None
    reasoning_price: Decimal | None = None
    audio_prompt_price: Decimal | None = None
    audio_completion_price: Decimal | None = None
    output_limit: OutputLimit = OutputLimit.MAX_TOKENS
    temperature: bool = True
    stream_options: bool = True
    system_role: SystemRole | None = None
    context_window: Annotated[int, msgspec.Meta(ge=1, le=1 << 30)] | None = None
    reasoning: bool = False
    image_base_tokens: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = _IMAGE_TOKENS.base
    image_tile_tokens: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = _IMAGE_TOKENS.tile
    first_byte: _Seconds | None = None
    idle: _Seconds | None = None
    total: _Seconds | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a price that can't be one."""
        for name, price in self.prices().items():
            if not price.is_finite() or not 0 <= price <= _HIGHEST_PRICE:
                raise ValueError(f"{self.id}: {name}: {price} is no price of a million tokens")

    def prices(self) -> dict[str, Decimal]:
        """What is said of prices, in USD for a million tokens, by the names of the file."""
        names = ("prompt_price", "completion_price", *(f"{kind}_price" for kind in KINDS))
        given = {name: getattr(self, name) for name in names}
        return {name: price for name, price in given.items() if price is not None}

    def model(self) -> Model:
        """The model that is described."""
        prices = {name: int(price * _NANO) for name, price in self.prices().items()}
        return Model(
            self.id,
            self.provider,
            self.aliases,
            self.max_output_tokens,
            prices["prompt_price"],
            prices["completion_price"],
            self.upstream,
            self.fallback,
            KindPrices(*(prices.get(f"{kind}_price") for kind in KINDS)),
            Takes(self.output_limit, self.temperature, self.stream_options, self.system_role),
            ImageTokens(self.image_base_tokens, self.image_tile_tokens),
            ModelTimeouts(self.first_byte, self.idle, self.total, self.reasoning),
            self.context_window,
        )


class ModelsFile(msgspec.Struct, forbid_unknown_fields=True):
    """What is in the file, its models not yet compared with each other."""

    default: list[str]
    models: list[_Entry]
    providers: dict[str, Listing] = {}

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`. Raises ValueError that says what is wrong with it."""
        try:
            return cls.of(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"can't read it: {error.strerror}") from None

    @classmethod
    def of(cls, text: str) -> Self:
        """A file with this in it. Raises ValueError that says what is wrong with it."""
        try:
            file = msgspec.convert(tomllib.loads(text), cls)
        except msgspec.ValidationError as wrong:
            raise ValueError(str(wrong)) from None
        for name in file.providers:
            if name == "echo" or not _PROVIDER_NAME.fullmatch(name):
                raise ValueError(f"providers: {name!r} can't be the name of one")
        return file

    def warnings(self) -> list[str]:
        """What is most likely a mistake, though it could be meant."""
        found = []
        for entry in self.models:
            window = entry.context_window
            if window is not None and window <= entry.max_output_tokens:
                found.append(
                    f"{entry.id}: context_window = {window} leaves no room to read beside"
                    f" max_output_tokens = {entry.max_output_tokens}"
                )
            prices = entry.prices()
            for name, price in prices.items():
                if 0 < price < _IMPLAUSIBLY_LOW:
                    found.append(
                        f"{entry.id}: {name} = {price:f}: prices are of a million tokens,"
                        " and this looks like the price of one"
                    )
                elif price > _IMPLAUSIBLY_HIGH:
                    found.append(
                        f"{entry.id}: {name} = {price:f} USD for a million tokens is a lot"
                    )
            if prices.get("cached_read_price", 0) > entry.prompt_price:
                found.append(f"{entry.id}: cached_read_price is above prompt_price")
            if (entry.prompt_price == 0) != (entry.completion_price == 0):
                found.append(f"{entry.id}: one of prompt_price and completion_price is 0")
        return found

    def catalog(self, configured: frozenset[str], known: frozenset[str]) -> "Catalog":
        """Its models, given who can be called without a caller's own key, and who at all.

        Raises ValueError that says what is wrong.
        """
        for entry in self.models:
            if entry.provider not in known:
                raise ValueError(f"{entry.id}: no provider is called {entry.provider}")
        return Catalog((entry.model() for entry in self.models), self.default, configured)


class Catalog:
    """The models of this installation, those without a configured provider too."""

    def __init__(
        self, models: Iterable[Model], default: list[str], providers: frozenset[str]
    ) -> None:
        """Takes the models, what is called when none is named, and who can answer.

        Raises ValueError when a name stands for two models, or for none, and when a
        model stands in for itself.
        """
        self._models = tuple(models)
        self._providers = providers
        self._by_name: dict[str, Model] = {}
        for model in self._models:
            for name in (model.id, *model.aliases):
                if name in self._by_name:
                    raise ValueError(f"two models are called {name}")
                self._by_name[name] = model
        self._chains = {model.id: self._chain(model) for model in self._models}
        missing = [name for name in default if name not in self._by_name]
        if missing:
            raise ValueError(f"default: no model is called {missing[0]}")
        self._default = next((n for n in default if self._by_name[n].provider in providers), "")
        if not self._default:
            raise ValueError("default: no model has a configured provider")

    def called(self, name: str) -> Model | None:
        """The model of this id or alias, or the default for "". None when there is none."""
        return self._by_name.get(name or self._default)

    def find(self, name: str, *, own_key: bool = False) -> Model:
        """The model to call by this name, or the default for "".

        Raises NotFound, and FailedPrecondition when its provider is not configured
        and the caller has no key of their own.
        """
        model = self.called(name)
        if model is None:
            raise errors.NotFound(
                "MODEL_NOT_FOUND",
                f"no model {name}; GET /v1/models lists them",
                metadata={"model": name},
            )
        if model.provider not in self._providers and not own_key:
            raise errors.FailedPrecondition(
                "MODEL_NOT_CONFIGURED",
                f"{model.id} needs a key of {model.provider}, which is not set here",
                metadata={"model": model.id, "provider": model.provider},
            )
        return model

    def chain(
        self, model: Model, *, own_key: bool = False, allowed: frozenset[str] = frozenset()
    ) -> list[Model]:
        """`model`, and those that may answer in its place: of those `allowed`, if any are named.

        A caller's own key is good at one provider alone, so it stays there.
        """
        return [
            each
            for each in self._chains[model.id]
            if (each.provider == model.provider if own_key else each.provider in self._providers)
            and (each is model or not allowed or not allowed.isdisjoint((each.id, *each.aliases)))
        ]

    def _chain(self, model: Model) -> list[Model]:
        ids = {each.id: each for each in self._models}
        chain = [model]
        for name in model.fallback:
            if name not in ids:
                raise ValueError(f"{model.id}: fallback: no model has the id {name}")
            if ids[name] in chain:
                raise ValueError(f"{model.id}: fallback: {name} is asked twice")
            chain.append(ids[name])
        return chain

    def available(self, allowed: Collection[str] = ()) -> list[Model]:
        """The models that can be called, in the order of the file.

        Where `allowed` has any, only those of these ids or aliases.
        """
        return [
            model
            for model in self._models
            if model.provider in self._providers
            and (not allowed or not {model.id, *model.aliases}.isdisjoint(allowed))
        ]
