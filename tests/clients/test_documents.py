"""docs/clients.md, typed as it stands there."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.clients import installed
from tests.clients.running import run
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import ROOT, Account, Up

REPLY = "Hello, world!"
_EXAMPLE = re.compile(r"(?ms)^## ([^\n]+)\n(?:(?!^## ).)*?^```(\w+)\n(.*?)^```$")
EXAMPLES = {
    name: (kind, code)
    for name, kind, code in _EXAMPLE.findall((ROOT / "docs/clients.md").read_text())
}
# What each wants in an environment of its own.
PACKAGES = {
    "OpenAI for Python": "openai",
    "LangChain": "langchain",
    "Pydantic AI": "pydantic-ai",
    "llm": "llm",
    "aider": "aider",
}


def test_every_client_has_its_example():
    text = (ROOT / "docs/clients.md").read_text()
    assert list(EXAMPLES) == re.findall(r"(?m)^## (.+)$", text)
    assert set(PACKAGES) < set(EXAMPLES)


def command(name: str, code: str, folder: Path) -> tuple[tuple[str | Path, ...], Path]:
    """How to run that example, and the folder with its programs."""
    kind, _ = EXAMPLES[name]
    if kind == "js":
        program = installed.node() / "example.mjs"
        program.write_text(code)
        return ("node", program), installed.programs("node")
    programs = installed.programs(PACKAGES[name]) if name in PACKAGES else ROOT / ".venv/bin"
    if kind == "python":
        (folder / "example.py").write_text(code)
        return ("python", "example.py"), programs
    return ("bash", "-euo", "pipefail", "-c", code), programs


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_example_of(
    name: str, up: Up, account: Account, provider: FakeOpenAI, tmp_path: Path
):
    here = {
        "localhost:8000": f"127.0.0.1:{up.gateway}",
        "localhost:8443": f"127.0.0.1:{up.grpc}",
        "gen/khesht.binpb": str(ROOT / "gen/khesht.binpb"),
    }
    code = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], EXAMPLES[name][1])
    if name == "aider":
        provider.script = Script(pieces=("hello.py\n```python\n", 'print("Hello")\n', "```\n"))
    told, programs = await asyncio.to_thread(command, name, code, tmp_path)
    path = f"{programs}:/usr/local/bin:/usr/bin:/bin"
    # A program is looked for in our own PATH, and not in that of the environment it gets.
    printed = await run(("env", *told), up, account, tmp_path, PATH=path)
    if name == "aider":
        assert (tmp_path / "hello.py").read_text() == 'print("Hello")\n'
    else:
        assert REPLY in printed or printed.count('"Hello"') == 1
    assert provider.requests
