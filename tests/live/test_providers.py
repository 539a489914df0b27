"""Real providers, by keys that whoever runs this has set: it costs a fraction of a cent."""

import json
import os
from pathlib import Path

import pytest

from cli.settings import LocalSettings
from tests.mesh.running import new_account, started

MODELS = {
    "OPENAI_API_KEY": "gpt-4o-mini",
    "GROQ_API_KEY": "llama-3.3-70b-versatile",
    "HF_TOKEN": "meta-llama/Llama-3.3-70B-Instruct",
}
GIVEN = LocalSettings.read().environment
SET = [variable for variable in MODELS if variable in GIVEN]


def test_a_key_is_set():
    assert SET, f"set one of {', '.join(MODELS)}"


@pytest.mark.parametrize("variable", SET)
async def test_a_provider_streams_and_counts(tmp_path: Path, variable: str):
    settings = {name: GIVEN[name] for name in SET if name not in os.environ}
    async with started(tmp_path / "home", **settings) as up:
        account = await new_account(up)
        body = {"message": "Say the word yes.", "model": MODELS[variable], "max_tokens": 5}
        answer = await up.call("POST", "/chat/stream", body, account.key)
        events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
        assert events[-1]["done"], answer.text
        assert "yes" in events[-1]["full_text"].lower()
        assert events[-1]["usage"]["completion_tokens"] > 0
