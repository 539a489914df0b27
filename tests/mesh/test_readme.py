"""The README's tour and other examples, typed as they stand there, and what they print."""

import asyncio
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mesh.running import ROOT, Up, new_account

_FENCE = re.compile(r"(?ms)^```(bash|json|text)\n(.*?)^```$")
# Fields that have the same value in every run.
_STABLE = (
    *("username", "email", "name", "is_active", "rate_limit_per_minute", "finish_reason"),
    *("full_text", "message", "total_tokens", "total_requests", "title", "content", "role"),
    *("price", "is_available", "code", "status", "reason", "type", "domain", "field"),
)
# A newcomer's account is the first one, and so an admin; here it may be any.
_ROLE = re.compile(r'("role": ?)"(admin|user)"')


@dataclass(frozen=True)
class Step:
    """A block of commands, and what the README shows as their output."""

    commands: str
    output: str


def steps(document: str = "README.md", section: str = "The tour") -> list[Step]:
    """The blocks of a section, in order."""
    tour = (ROOT / document).read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    found: list[Step] = []
    for kind, text in _FENCE.findall(tour):
        if kind == "bash":
            found.append(Step(text, ""))
        else:
            found[-1] = Step(found[-1].commands, text)
    return found


def placed(commands: str, up: Up) -> str:
    """`commands` as they have to be typed for this mesh and this interpreter."""
    here = {
        "localhost:8000": f"127.0.0.1:{up.gateway}",
        "localhost:8443": f"127.0.0.1:{up.grpc}",
        ".venv/bin/khesht": f"{sys.executable} -m cli.main",
        ".venv/bin/python": sys.executable,
    }
    return re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], commands)


def names(output: str) -> set[str]:
    """Names of all fields in JSON."""
    return set(re.findall(r'"([@\w]+)":', output))


def values(output: str) -> list[tuple[str, str]]:
    """The stable fields in JSON and their values, in order."""
    found = re.findall(r'"(\w+)": ?("[^"]*"|[\w.-]+)', _ROLE.sub(r'\1"…"', output))
    return [(name, value) for name, value in found if name in _STABLE]


async def test_the_tour_does_what_it_shows(up: Up, tmp_path: Path):
    await check(steps(), up, tmp_path)


@pytest.mark.parametrize("document", ["docs/generations.md", "docs/examples.md"])
async def test_other_documents_do_what_they_show(up: Up, tmp_path: Path, document: str):
    account = await new_account(up)
    shell = next(step for step in steps() if "field()" in step.commands)
    known = Step(f"{shell.commands}\nKEY={account.key}\n", "")
    await check([known, *steps(document, "By example")], up, tmp_path)


async def check(tour: list[Step], up: Up, tmp_path: Path) -> None:
    """Types `tour`, and compares what it prints with what it shows."""
    # One shell for all, as in a terminal; what each block prints goes to a file of its own.
    script = "\n".join(
        f"exec >{tmp_path / str(number)}\n{placed(step.commands, up)}"
        for number, step in enumerate(tour)
    )
    process = await asyncio.create_subprocess_exec(
        *("bash", "-eo", "pipefail", "-c", script),
        cwd=ROOT,
        env=up.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await process.communicate()
    printed = [(tmp_path / str(n)) for n in range(len(tour))]
    done = [path.read_text() for path in printed if path.exists()]
    assert process.returncode == 0, f"{tour[len(done) - 1].commands}{complaint.decode()}"
    for step, output in zip(tour, done, strict=True):
        if names(step.output):
            assert names(output) == names(step.output), step.commands
            assert values(output) == values(step.output), step.commands
        else:
            assert output.split() == step.output.split(), step.commands


def test_the_tour_has_a_stream_that_ends_and_a_client_of_15_lines():
    (stream,) = [step for step in steps() if "chat/stream" in step.commands]
    events = [json.loads(line[6:]) for line in stream.output.splitlines() if line]
    assert ["done" in event for event in events] == [False] * (len(events) - 1) + [True]
    (client,) = [step for step in steps() if "import grpc" in step.commands]
    program = client.commands.split("<<'EOF'\n")[1].split("EOF")[0]
    assert len(program.splitlines()) <= 15


@pytest.mark.parametrize("block", ["OPENAI_BASE_URL", "KHESHT_HOME"])
def test_what_is_shown_and_not_run_is_still_there(block: str):
    assert re.search(rf"(?m)^.*{block}=\S+ .*make run$", (ROOT / "README.md").read_text())
