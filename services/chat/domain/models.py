"""The models file: which models there are, by which names, at which prices."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Self

import msgspec

from mesh import errors

_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Model:
    """A model. Prices are nano-USD for a million tokens."""

    id: str
    provider: str
    aliases: tuple[str, ...]
    max_output_tokens: int
    prompt_price: int
    completion_price: int


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    provider: str
    max_output_tokens: int
    prompt_price: Decimal
    completion_price: Decimal
    aliases: tuple[str, ...] = ()


class _File(msgspec.Struct, forbid_unknown_fields=True):
    default: list[str]
    models: list[_Entry]


class Catalog:
    """The models of this installation, those without a configured provider too."""

    def __init__(
        self, models: Iterable[Model], default: list[str], providers: frozenset[str]
    ) -> None:
        """Takes the models, what is called when none is named, and who can answer.

        Raises ValueError when a name stands for two models, or for none.
        """
        self._models = tuple(models)
        self._providers = providers
        self._by_name: dict[str, Model] = {}
        for model in self._models:
            for name in (model.id, *model.aliases):
                if name in self._by_name:
                    raise ValueError(f"two models are called {name}")
                self._by_name[name] = model
        missing = [name for name in default if name not in self._by_name]
        if missing:
            raise ValueError(f"default: no model is called {missing[0]}")
        self._default = next((n for n in default if self._by_name[n].provider in providers), "")
        if not self._default:
            raise ValueError("default: no model has a configured provider")

    @classmethod
    def read(cls, path: Path, providers: frozenset[str]) -> Self:
        """The catalog in a TOML file. Raises ValueError that says what is wrong with it."""
        try:
            file = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File)
            models = [
                Model(
                    entry.id,
                    entry.provider,
                    entry.aliases,
                    entry.max_output_tokens,
                    int(entry.prompt_price * _NANO),
                    int(entry.completion_price * _NANO),
                )
                for entry in file.models
            ]
            return cls(models, file.default, providers)
        except (OSError, ValueError, msgspec.ValidationError) as wrong:
            raise ValueError(f"MODELS_FILE: {path.name}: {wrong}") from None

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

    def available(self) -> list[Model]:
        """The models that can be called, in the order of the file."""
        return [model for model in self._models if model.provider in self._providers]
