"""What is said of lines in `.env` that set nothing."""

from pathlib import Path

import pytest

from cli import typos


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A folder of its own, in which nothing is set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELS_FILE", raising=False)


def notes(written: str) -> list[str]:
    Path(".env").write_text(written)
    return typos.notes()


def test_without_a_file_there_is_nothing_to_say():
    assert typos.notes() == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("OPENNAI_API_KEY", "OPENAI_API_KEY"),
        ("GROK_API_KEY_FILE", "GROQ_API_KEY"),
        ("OPENAI_APIKEY", "OPENAI_API_KEY"),
    ],
)
def test_a_mistyped_key_of_a_provider_is_noted(name: str, meant: str):
    assert notes(f"{name}=secret") == [
        f"note: {name} in .env is no setting of khesht; is {meant} meant?"
    ]


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "MISTRAL_API_KEY"])
def test_a_key_of_any_provider_is_not_noted(name: str):
    assert notes(f"{name}=secret") == []


def test_the_key_of_a_provider_of_the_models_file_is_not_noted():
    Path("models.toml").write_text('[providers.grok]\nkey_env = "GROK_API_KEY"\n')
    assert len(notes("GROK_API_KEY=secret")) == 1
    assert notes("GROK_API_KEY=secret\nMODELS_FILE=models.toml") == []


@pytest.mark.parametrize("line", ["this is no line", "WORKERS", 'SECRET_KEY="not ended'])
def test_a_line_that_sets_nothing_is_noted_by_its_number_alone(
    line: str, caplog: pytest.LogCaptureFixture
):
    assert notes(f"# A comment.\n\n{line}\n") == ["note: line 3 of .env is no setting"]
    assert caplog.messages == []
