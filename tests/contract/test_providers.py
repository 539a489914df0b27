"""docs/providers.md: its snippets are models files that can be read, for the providers it names."""

import re

import pytest

from services.chat.config import Config
from services.chat.domain.models import ModelsFile
from tests.contract.described import ROOT

TEXT = (ROOT / "docs/providers.md").read_text()
SECTIONS = dict(re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", TEXT))
SNIPPETS = [
    pytest.param(snippet, id=f"{title} {at}")
    for title, text in SECTIONS.items()
    for at, snippet in enumerate(re.findall(r"(?s)```toml\n(.*?)```", text))
]
NAMED = {
    *("OpenAI", "Azure OpenAI", "Groq", "Hugging Face", "Mistral", "OpenRouter", "DeepSeek"),
    *("vLLM", "llama.cpp", "Ollama", "LM Studio"),
}
BUILT_IN = {"openai", "groq", "huggingface"}


def test_each_provider_that_is_promised_has_a_snippet() -> None:
    assert {title for title, text in SECTIONS.items() if "```toml" in text} == NAMED
    assert "None of it was tried with a real account" in TEXT


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_a_models_file_without_anything_to_warn_of(
    snippet: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (first, *_) = re.findall(r'(?m)^id = "(.+)"$', snippet)
    folder = tmp_path_factory.mktemp("models")
    file = folder / "models.toml"
    # TOML has what is of the file itself before its tables.
    file.write_text(f'default = ["{first}"]\n{snippet}')
    read = ModelsFile.read(file)
    assert read.warnings() == []
    keys = {name: "sk-or-of-a-test" for name in re.findall(r'key_env = "(.+)"', snippet)}
    given = {
        **{"LISTEN": "127.0.0.1:0", "MODELS_FILE": str(file), "SECRET_KEY": "x" * 32},
        **{"DATABASE_URL": "postgresql://a:b@127.0.0.1:1/c"},
        **{f"{name}_ADDRESS": "127.0.0.1:1" for name in ("AUTH", "KEYS", "USAGE", "ITEMS")},
        **{f"TLS_{name}_FILE": str(file) for name in ("CERT", "KEY", "CA")},
        **{"OPENAI_API_KEY": "sk-x", "GROQ_API_KEY": "gsk_x", "HF_TOKEN": "hf_x"},
    }
    config = Config.load(given | keys)
    model = config.catalog().find("")
    accounts = {account.name: account for account in config.accounts}
    assert model.id == first
    assert accounts[model.provider].usable
    assert set(accounts) - BUILT_IN == set(read.providers)
