"""Prices taken from lists into the models file."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from cli.prices import import_prices, read_list
from cli.settings import LocalSettings
from mesh.local.errors import LocalError
from services.chat.domain.models import ModelsFile

MODELS = """# Ours.
default = ["small"]

[[models]]
id = "small"  # the cheap one
provider = "openai"
upstream = "gpt-4o-mini"
max_output_tokens = 16384
prompt_price = "0.15"
completion_price = "0.60"

[[models]]
id = "house"
provider = "house"
max_output_tokens = 100
prompt_price = "1"
completion_price = "1"
"""
LITELLM = {
    "sample_spec": {"input_cost_per_token": "what a token costs"},
    "gpt-4o-mini": {
        "input_cost_per_token": 2e-07,
        "output_cost_per_token": 6e-07,
        "cache_read_input_token_cost": 7.5e-08,
        "litellm_provider": "openai",
    },
    "dall-e-3": {"output_cost_per_image": 0.04},
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalSettings:
    monkeypatch.chdir(tmp_path)
    return LocalSettings.read()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    return file


def listed(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_what_changes_is_shown_and_all_else_stays(tmp_path: Path, models: Path, settings):
    source = listed(tmp_path, "list.json", json.dumps(LITELLM))
    assert list(import_prices(settings, source, models)) == [
        "small: prompt_price 0.15 -> 0.2",
        "small: cached_read_price as plain text -> 0.075",
        "house: not in the list",
        f"2 prices changed in {models}",
    ]
    text = models.read_text()
    assert "# Ours." in text
    assert "# the cheap one" in text
    assert 'prompt_price = "0.2"' in text
    ModelsFile.read(models)
    assert list(import_prices(settings, source, models))[-1] == "nothing changes"


def test_a_dry_run_changes_nothing(tmp_path: Path, models: Path, settings):
    source = listed(tmp_path, "list.json", json.dumps(LITELLM))
    lines = list(import_prices(settings, source, models, dry_run=True))
    assert lines[-1] == f"2 prices would change in {models}"
    assert models.read_text() == MODELS


def test_a_list_may_be_as_the_models_file(tmp_path: Path, models: Path, settings):
    text = '[[models]]\nid = "house"\nprompt_price = "2"\nreasoning_price = 3.5\n'
    source = listed(tmp_path, "list.toml", text)
    assert read_list(source) == {
        "house": {"prompt_price": Decimal(2), "reasoning_price": Decimal("3.5")}
    }
    lines = list(import_prices(settings, source, models))
    assert lines[1:3] == [
        "house: prompt_price 1 -> 2",
        "house: reasoning_price as plain text -> 3.5",
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", "[1]"),
        ("list.json", "{"),
        ("list.json", '{"gpt-4o-mini": {"input_cost_per_token": "cheap"}}'),
        ("list.json", '{"gpt-4o-mini": {"input_cost_per_token": -1}}'),
        ("list.toml", "models = 5"),
        ("list.toml", '[[models]]\nid = "house"\nprompt_price = "nan"\n'),
        ("list.toml", '[[models]]\nid = "house"\nprompt_price = "99999999999"\n'),
    ],
)
def test_what_is_no_list_of_prices_changes_nothing(
    tmp_path: Path, models: Path, settings, name: str, text: str
):
    with pytest.raises(LocalError):
        list(import_prices(settings, listed(tmp_path, name, text), models))
    assert models.read_text() == MODELS


def test_a_file_that_is_not_there_is_named(tmp_path: Path, models: Path, settings):
    with pytest.raises(LocalError, match=r"none\.json"):
        list(import_prices(settings, tmp_path / "none.json", models))


def test_prices_that_look_like_a_mistake_are_named():
    text = MODELS.replace('"0.15"', '"0.00000015"').replace('"0.60"', '"6000"')
    assert ModelsFile.of(text).warnings() == [
        "small: prompt_price = 0.00000015: prices are of a million tokens,"
        " and this looks like the price of one",
        "small: completion_price = 6000 USD for a million tokens is a lot",
    ]
    assert ModelsFile.of(MODELS).warnings() == []
