"""Providers that the operator lists: where they are, by which key, within which bounds."""

import re
from pathlib import Path

import pytest

from cli import topology
from mesh.config import ConfigError
from mesh.local.certificates import Identity
from services.chat.config import Config
from services.chat.domain.provider import Account, Bounds, Timeouts
from tests.contract.described import ROOT
from tests.fake_openai import SHIPPED, models_file

NOWHERE = Identity(Path(), Path(), Path())


def told(**given: str) -> dict[str, str]:
    """The environment of chat when a user set `given`."""
    addresses = dict.fromkeys(topology.SERVICES, "127.0.0.1:1")
    admin = "postgresql://khesht@127.0.0.1:1/khesht"
    return topology.environment("chat", addresses, NOWHERE, admin, "x" * 32, given)


def account(folder: Path, listed: str, name: str = "mine", **given: str) -> Account:
    config = Config.load(told(MODELS_FILE=models_file(folder, listed), **given))
    config.catalog()
    (found,) = [each for each in config.accounts if each.name == name]
    return found


def refusal(folder: Path, listed: str, **given: str) -> str:
    with pytest.raises(ConfigError) as refused:
        account(folder, listed, **given)
    return str(refused.value)


def test_a_listed_provider_has_what_is_said_of_it_and_defaults(tmp_path: Path):
    listed = """
[providers.mine]
url = "https://models.example/v1"
key_env = "MINE_API_KEY"
key_prefix = "mk-"
first_byte = 50
concurrency = 8
"""
    assert account(tmp_path, listed, MINE_API_KEY="mk-1", PROVIDER_IDLE_TIMEOUT="7") == Account(
        "mine",
        "https://models.example/v1",
        "mk-1",
        "mk-",
        timeouts=Timeouts(3, 50, 7, 570),
        bounds=Bounds(8, 1, 5, 10),
    )


def test_a_key_may_be_in_a_file(tmp_path: Path):
    listed = '[providers.mine]\nurl = "https://models.example/v1"\nkey_env = "MINE_API_KEY"'
    (tmp_path / "key").write_text("from a file\n")
    assert account(tmp_path, listed, MINE_API_KEY_FILE=str(tmp_path / "key")).key == "from a file"
    missing = refusal(tmp_path, listed, MINE_API_KEY_FILE=str(tmp_path / "none"))
    assert missing.startswith("MINE_API_KEY_FILE: can't read")


def test_one_without_its_key_is_not_configured_and_one_that_needs_none_is(tmp_path: Path):
    for key, usable in (('key_env = "MINE_API_KEY"', False), ("", True)):
        listed = f'[providers.mine]\nurl = "https://models.example/v1"\n{key}'
        assert account(tmp_path, listed).usable == usable


def test_what_is_built_in_can_be_changed_and_the_environment_wins(tmp_path: Path):
    listed = (
        '[providers.openai]\nurl = "https://eu.example/v1"\nretries = 0\nkey_env = "EU_API_KEY"'
    )
    changed = account(tmp_path, listed, "openai", EU_API_KEY="sk-eu", OPENAI_API_KEY="sk-us")
    assert (changed.url, changed.key, changed.key_prefix, changed.bounds.retries) == (
        "https://eu.example/v1",
        "sk-eu",
        "sk-",
        0,
    )
    here = account(tmp_path, listed, "openai", OPENAI_BASE_URL="http://127.0.0.1:9/v1")
    assert (here.url, here.private, here.usable) == ("http://127.0.0.1:9/v1", True, False)
    assert account(tmp_path, "", "openai").url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("url", "more", "private"),
    [
        ("https://models.example/v1", "", False),
        ("https://vllm.internal/v1", "allow_private = true", True),
        ("http://vllm:8000/v1", "allow_private = true", True),
        ("http://localhost:8000/v1", "", True),
        ("http://10.0.0.7:8000/v1", "", True),
        ("http://[::1]:8000/v1", "", True),
        ("https://8.8.8.8/v1", "", False),
    ],
)
def test_a_url_that_says_so_itself_is_in_a_network_of_ones_own(
    tmp_path: Path, url: str, more: str, private: bool
):
    assert account(tmp_path, f'[providers.mine]\nurl = "{url}"\n{more}').private == private


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        ('url = "http://models.example/v1"', "must be https"),
        ('url = "http://8.8.8.8/v1"', "must be https"),
        ('url = "http://169.254.169.254/v1"', "no address of a provider"),
        ('url = "https://[fe80::1]/v1"\nallow_private = true', "no address of a provider"),
        ('url = "ftp://models.example"', "url"),
        ('url = "https://models.example/v1?x"', "url"),
        ("retries = 0", "providers.mine: url is missing"),
        ('url = "https://m.example"\nkey_env = "SECRET_KEY"', "SECRET_KEY must end in _API_KEY"),
        ('url = "https://m.example"\nkey_env = "x_API_KEY"', "must end in _API_KEY"),
        ('url = "https://m.example"\nkey = "sk-1"', "key"),
        ('url = "https://m.example"\nfirst_byte = 3601', "first_byte"),
        ('url = "https://m.example"\nconcurrency = 0', "concurrency"),
        ('url = "https://m.example"\nkey_header = "Host"', "Host is no header for a key"),
        ('url = "https://m.example"\nkey_header = "a: b"', "a: b is no header for a key"),
        ('url = "https://m.example"\nquery = {v = 1}', "query"),
        ('url = "https://m.example"\nretries = 6', "retries"),
        ('[providers.echo]\nurl = "https://m.example"', "'echo' can't be the name"),
        ('[providers.Mine]\nurl = "https://m.example"', "'Mine' can't be the name"),
    ],
)
def test_a_listing_that_is_wrong_is_refused(tmp_path: Path, listed: str, text: str):
    table = listed if listed.startswith("[") else f"[providers.mine]\n{listed}"
    refused = refusal(tmp_path, table)
    assert refused.startswith("MODELS_FILE: models.toml: ")
    assert text in refused


def test_an_address_in_the_environment_is_held_to_the_same(tmp_path: Path):
    refused = refusal(tmp_path, "", OPENAI_BASE_URL="http://ollama:11434/v1")
    assert "providers.openai: http://ollama:11434/v1 must be https" in refused
    allowed = "[providers.openai]\nallow_private = true"
    here = account(tmp_path, allowed, "openai", OPENAI_BASE_URL="http://ollama:11434/v1")
    assert (here.url, here.private) == ("http://ollama:11434/v1", True)


def test_a_model_at_an_unknown_provider_is_refused(tmp_path: Path):
    model = """
[[models]]
id = "x"
provider = "opanai"
max_output_tokens = 1
prompt_price = "0"
completion_price = "0"
"""
    assert "x: no provider is called opanai" in refusal(tmp_path, model)


def test_keys_of_providers_reach_who_calls_them_and_nobody_else():
    addresses = dict.fromkeys(topology.SERVICES, "127.0.0.1:1")
    keys = {
        *("OPENAI_API_KEY", "HF_TOKEN", "MINE_API_KEY", "MINE_API_KEY_FILE", "HF_TOKEN_FILE"),
    }
    given = dict.fromkeys([*keys, "LOG_LEVEL"], "x")
    reached = {
        service: keys
        & set(topology.environment(service, addresses, NOWHERE, "postgresql://a@b/c", "x", given))
        for service in topology.SERVICES
    }
    assert reached.pop("chat") == keys
    assert not any(reached.values())


def test_the_example_in_the_readme_is_good(tmp_path: Path):
    (example,) = re.findall(r"(?ms)^```toml\n(.*?)^```", (ROOT / "README.md").read_text())
    house = account(tmp_path, example, "house", HOUSE_API_KEY="k", GROQ_API_KEY="gsk_x")
    assert (house.key, house.private, house.bounds.concurrency) == ("k", True, 16)
    config = Config.load(
        told(MODELS_FILE=models_file(tmp_path, example), HOUSE_API_KEY="k", GROQ_API_KEY="g")
    )
    models = config.catalog()
    chain = models.chain(models.find("house-70b"))
    assert [each.id for each in chain] == ["house-70b", "llama-3.3-70b-versatile"]


def test_what_the_shipped_file_says_of_defaults_is_so(tmp_path: Path):
    text = SHIPPED.read_text()
    lines = re.findall(r"(?m)^#   ((?:\[providers\.|\w+ = ).*?)(?:  .*)?$", text)
    said = "\n".join(lines[lines.index("[providers.house]") :])
    told_all = account(tmp_path, said, "house", HOUSE_API_KEY="k")
    assert told_all == Account("house", "https://models.example.com/v1", "k")
