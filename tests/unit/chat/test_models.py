"""The models file: names, prices, and who can answer."""

import re
from pathlib import Path

import pytest

from mesh import errors
from services.chat.config import Config
from services.chat.domain.models import Catalog, Model, ModelsFile, OutputLimit, SystemRole, Takes
from services.chat.domain.provider import Timeouts

ECHO = frozenset({"echo"})
BOTH = frozenset({"echo", "openai"})
KNOWN = frozenset({"echo", "openai", "groq", "huggingface"})
SHIPPED = Config.model_fields["models_file"].default
FILE = """
default = ["big", "small"]
[[models]]
id = "big"
aliases = ["smart", "b"]
provider = "openai"
max_output_tokens = 100
prompt_price = "0.15"
completion_price = "0.60"
[[models]]
id = "small"
provider = "echo"
max_output_tokens = 10
prompt_price = "0"
completion_price = "0"
"""


def catalog(folder: Path, text: str = FILE, providers: frozenset[str] = BOTH) -> Catalog:
    file = folder / "models.toml"
    file.write_text(text)
    return ModelsFile.read(file).catalog(providers, KNOWN)


def test_a_model_is_found_by_id_alias_and_default(tmp_path: Path):
    models = catalog(tmp_path)
    big = models.find("big")
    assert models.find("smart") is models.find("b") is models.find("") is big
    assert models.called("Big") is None
    assert (big.id, big.provider, big.max_output_tokens) == ("big", "openai", 100)


def test_prices_are_exact(tmp_path: Path):
    big = catalog(tmp_path).find("big")
    assert (big.prompt_price, big.completion_price) == (150_000_000, 600_000_000)
    dear = catalog(tmp_path, FILE.replace('"0.15"', '"1234567.123456789"')).find("big")
    assert dear.prompt_price == 1_234_567_123_456_789


def test_the_default_is_the_first_that_can_answer(tmp_path: Path):
    models = catalog(tmp_path, providers=ECHO)
    assert models.find("").id == "small"
    assert [model.id for model in models.available()] == ["small"]
    assert [model.id for model in catalog(tmp_path).available()] == ["big", "small"]


def test_an_unknown_model_and_one_without_a_provider_are_told_apart(tmp_path: Path):
    models = catalog(tmp_path, providers=ECHO)
    with pytest.raises(errors.NotFound) as unknown:
        models.find("huge")
    with pytest.raises(errors.FailedPrecondition) as unconfigured:
        models.find("smart")
    assert (unknown.value.reason, unconfigured.value.reason) == (
        "MODEL_NOT_FOUND",
        "MODEL_NOT_CONFIGURED",
    )
    assert unconfigured.value.metadata == {"model": "big", "provider": "openai"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('id = "small"', 'id = "b"', "two models are called b"),
        ('["smart", "b"]', '["small"]', "two models are called small"),
        ('["smart", "b"]', '["b", "b"]', "two models are called b"),
        ('"big", "small"]', '"none"]', "no model is called none"),
        ('default = ["big", "small"]', "default = []", "no model has a configured provider"),
        ('prompt_price = "0.15"', "", "prompt_price"),
        ('prompt_price = "0.15"', 'prompt_price = "cheap"', "prompt_price"),
        ('provider = "echo"', 'provider = "echo"\nprise = 1', "prise"),
        ('id = "big"', 'id = "big"\nsystem_role = "root"', "Invalid enum value 'root'"),
        ('id = "big"', 'id = "big"\ntemperature = 0', "Expected `bool`"),
        ('id = "big"', 'id = "big"\ncontext_window = 0', "context_window"),
        ('id = "big"', 'id = "big"\ntotal = 3601', "total"),
        ("max_output_tokens = 10\n", 'max_output_tokens = "ten"\n', "max_output_tokens"),
        ("default =", "default", "line 2"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, old: str, new: str, told: str):
    assert old in FILE
    with pytest.raises(ValueError, match=re.escape(told)):
        catalog(tmp_path, FILE.replace(old, new))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="can't read it: No such file"):
        ModelsFile.read(tmp_path / "missing.toml")


def test_the_file_that_is_shipped_is_good_with_and_without_a_provider():
    shipped = ModelsFile.read(SHIPPED)
    assert shipped.catalog(ECHO, KNOWN).find("").id == "echo"
    with_provider = shipped.catalog(BOTH, KNOWN)
    assert with_provider.find("fast").id == with_provider.find("").id == "gpt-4o-mini"
    assert with_provider.find("gpt-3.5-turbo").provider == "openai"


def test_a_model_takes_what_the_file_says(tmp_path: Path):
    said = (
        'id = "big"\noutput_limit = "max_completion_tokens"\ntemperature = false\n'
        'stream_options = false\nsystem_role = "developer"\ncontext_window = 4096'
    )
    models = catalog(tmp_path, FILE.replace('id = "big"', said))
    big, small = models.find("big"), models.find("small")
    assert big.takes == Takes(
        OutputLimit.MAX_COMPLETION_TOKENS,
        temperature=False,
        stream_options=False,
        system_role=SystemRole.DEVELOPER,
    )
    assert (big.context_window, small.context_window) == (4096, None)
    assert small.takes == Takes(OutputLimit.MAX_TOKENS)


@pytest.mark.parametrize(
    ("said", "own", "has"),
    [
        ("", Timeouts(3, 30, 30, 570), Timeouts(3, 30, 30, 570)),
        ("reasoning = true", Timeouts(3, 30, 30, 570), Timeouts(3, 600, 600, 3600)),
        ("reasoning = true\nidle = 60", Timeouts(3, 30, 30, 570), Timeouts(3, 600, 60, 3600)),
        ("reasoning = true", Timeouts(3, 900, 700, 800), Timeouts(3, 900, 700, 3600)),
        ("first_byte = 1\ntotal = 3600", Timeouts(3, 30, 30, 570), Timeouts(3, 1, 30, 3600)),
    ],
)
def test_a_model_has_the_time_that_the_file_says(
    tmp_path: Path, said: str, own: Timeouts, has: Timeouts
):
    big = catalog(tmp_path, FILE.replace('id = "big"', f'id = "big"\n{said}')).find("big")
    assert own.of(big.timeouts) == has


def test_a_window_without_room_to_read_is_most_likely_a_mistake():
    small = FILE.replace('id = "big"', 'id = "big"\ncontext_window = 100')
    assert ModelsFile.of(small).warnings() == [
        "big: context_window = 100 leaves no room to read beside max_output_tokens = 100"
    ]
    assert not ModelsFile.of(small.replace("= 100\nalias", "= 101\nalias")).warnings()


CHAINED = (
    FILE.replace('id = "big"', 'id = "big"\nfallback = ["small", "other"]')
    + """
[[models]]
id = "other"
provider = "openai"
upstream = "vendor/other"
fallback = ["big"]
max_output_tokens = 10
prompt_price = "0"
completion_price = "0"
"""
)


def ids(models: list[Model]) -> list[str]:
    return [model.id for model in models]


def test_those_that_stand_in_come_in_the_order_of_the_file(tmp_path: Path):
    models = catalog(tmp_path, CHAINED)
    big, other = models.find("big"), models.find("other")
    assert ids(models.chain(big)) == ["big", "small", "other"]
    assert ids(models.chain(other)) == ["other", "big"]  # And not those of big.
    assert ids(models.chain(big, own_key=True)) == ["big", "other"]
    assert ids(catalog(tmp_path, CHAINED, ECHO).chain(big)) == ["small"]
    assert ids(models.chain(big, allowed=frozenset({"big", "other"}))) == ["big", "other"]
    assert ids(models.chain(other, allowed=frozenset({"smart"}))) == ["other", "big"]
    assert ids(models.chain(other, allowed=frozenset({"small"}))) == ["other"]


@pytest.mark.parametrize(
    ("fallback", "told"),
    [
        ('["none"]', "big: fallback: no model has the id none"),
        ('["s"]', "big: fallback: no model has the id s"),
        ('["big"]', "big: fallback: big is asked twice"),
        ('["small", "small"]', "big: fallback: small is asked twice"),
    ],
)
def test_a_wrong_fallback_is_refused(tmp_path: Path, fallback: str, told: str):
    with pytest.raises(ValueError, match=told):
        catalog(tmp_path, FILE.replace('id = "big"', f'id = "big"\nfallback = {fallback}'))
