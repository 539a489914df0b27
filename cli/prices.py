"""`khesht prices import`: takes prices of models from a list that somebody keeps."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from cli import topology
from cli.settings import LocalSettings
from mesh.local.errors import LocalError
from services.chat.domain.models import ModelsFile
from services.chat.domain.tokens import KINDS

PRICES = ("prompt_price", "completion_price", *(f"{kind}_price" for kind in KINDS))
_SHIPPED = topology.ROOT / "services/chat/models.toml"
_TOKENS_PRICED = 1_000_000
# LiteLLM's list, model_prices_and_context_window.json: USD for one token.
_OF_LITELLM = {
    "prompt_price": "input_cost_per_token",
    "completion_price": "output_cost_per_token",
    "cached_read_price": "cache_read_input_token_cost",
    "cached_write_price": "cache_creation_input_token_cost",
    "reasoning_price": "output_cost_per_reasoning_token",
    "audio_prompt_price": "input_cost_per_audio_token",
    "audio_completion_price": "output_cost_per_audio_token",
}

# By the id of a model: USD for a million tokens, by the names of PRICES.
PriceList = Mapping[str, Mapping[str, Decimal]]


def import_prices(
    settings: LocalSettings, source: Path, models: Path | None, *, dry_run: bool = False
) -> Iterator[str]:
    """Writes the prices in `source` into the models file, and gives a line for what changed.

    Models are found by what their provider calls them, or by their id. A price that the list
    does not have stays. Raises LocalError for files that can't be read, or would not do.
    """
    file = models or Path(settings.environment.get("MODELS_FILE") or _SHIPPED)
    listed = read_list(source)
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8"))
    except (OSError, TOMLKitError, UnicodeDecodeError) as wrong:
        raise LocalError(f"{file}: {wrong}") from None
    changed = 0
    for entry in document.get("models", []):
        name = str(entry.get("upstream") or entry.get("id"))
        prices = listed.get(name) or listed.get(f"{entry.get('provider')}/{name}")
        if prices is None:
            yield f"{entry.get('id')}: not in the list"
            continue
        for price, usd in prices.items():
            before = entry.get(price)
            if before is None or Decimal(str(before)) != usd:
                entry[price] = f"{usd:f}"
                changed += 1
                yield f"{entry['id']}: {price} {before or 'as plain text'} -> {usd:f}"
    text = tomlkit.dumps(document)
    _check(text)
    if not changed:
        yield "nothing changes"
    elif dry_run:
        yield f"{changed} prices would change in {file}"
    else:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise LocalError(f"{file} can't be written: {error.strerror}") from None
        yield f"{changed} prices changed in {file}"


def read_list(source: Path) -> PriceList:
    """The prices in a file: LiteLLM's JSON, or TOML with `[[models]]` as in the models file.

    Raises LocalError that says what is wrong with it.
    """
    try:
        text = source.read_text(encoding="utf-8")
        if source.suffix == ".json":
            found = json.loads(text, parse_float=Decimal, parse_int=Decimal)
            return {
                name: _of_litellm(each) for name, each in found.items() if name != "sample_spec"
            }
        models = tomllib.loads(text, parse_float=Decimal)["models"]
        return {
            str(each["id"]): {name: _price(each[name]) for name in PRICES if name in each}
            for each in models
        }
    except OSError as error:
        raise LocalError(f"{source}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation) as wrong:
        raise LocalError(f"{source} is no list of prices: {wrong!r}") from None


def _of_litellm(entry: Mapping[str, Any]) -> dict[str, Decimal]:
    return {
        name: _price(Decimal(str(entry[theirs])) * _TOKENS_PRICED)
        for name, theirs in _OF_LITELLM.items()
        if entry.get(theirs) is not None
    }


def _price(value: object) -> Decimal:
    price = Decimal(str(value))
    if not price.is_finite() or price < 0:
        raise ValueError(f"{value} is no price")
    return price.normalize() if price else Decimal(0)


def _check(text: str) -> None:
    """Raises LocalError where the models file would not do any more."""
    try:
        ModelsFile.of(text)
    except ValueError as wrong:
        raise LocalError(f"the models file would be wrong: {wrong}") from None
