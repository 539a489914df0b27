"""schemathesis over the OpenAPI document: no answer that it does not describe, none that is a fault of ours,
and nothing accepted that it forbids. All checks are on but where `excepted` says why not."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.described import OPERATIONS, Operation
from tests.mesh.running import ROOT, Account, Up, new_account, started_with

SEEDS = (1, 2, 3)
# What only people may call. Logging out would end the run's own session.
PEOPLE = r"^/(auth/(me|password|sessions)|api/v1/api-keys|v1/(provider-credentials|users))"
# A QUERY without Content-Type is malformed by its standard, and the edge's parser says so before a path is looked at.
METHODS = ("get", "put", "post", "delete", "options", "patch", "trace")


def takes(operation: Operation, *fields: str) -> bool:
    """Whether one of `fields` is in its query, in a header of it, or in its body."""
    told = json.dumps(operation.whole())
    return any(f'"name": "{field}"' in told or f'"{field}": {{' in told for field in fields)


def excepted(operation: Operation) -> Iterator[str]:
    """The checks that cannot hold for an operation."""
    # What a list gave, how a provider's keys begin, what a model takes, and what time it is, no schema says.
    if takes(operation, "page_token", "api_key", "X-Provider-Key", "expires_at"):
        yield "positive_data_acceptance"
    # Headers that are not known are for others on the way: they are passed over.
    if operation.name == "FollowGeneration":
        yield "negative_data_rejection"


def configuration() -> str:
    """schemathesis.toml: what is excepted, each check for its operations alone."""
    lines = ["[phases.coverage]", f"unexpected-methods = {json.dumps(METHODS)}"]
    for operation in OPERATIONS:
        checks = list(excepted(operation))
        if checks:
            lines += ["[[operations]]", f'include-operation-id = "{operation.name}"']
            lines += [f"checks.{check}.enabled = false" for check in checks]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
async def unlimited(
    tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[Up]:
    """A mesh whose limits are out of the way."""
    folder = tmp_path_factory.mktemp("unlimited")
    async with started_with(
        provider_server,
        folder / "home",
        RATE_LIMIT_PER_MINUTE="100000",
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def first(unlimited: Up) -> Account:
    """The first account, which is an admin."""
    return await new_account(unlimited)


async def fuzzed(up: Up, folder: Path, credential: str, *arguments: str, seed: int = 1) -> str:
    """What schemathesis says at the end. Only the first seed tries what no seed changes."""
    phases = "examples,coverage,fuzzing,stateful" if seed == SEEDS[0] else "fuzzing"
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "schemathesis"), "run", str(folder / "openapi.json")),
        *("--url", up.url, "--header", f"Authorization: Bearer {credential}"),
        *("--phases", phases, "--seed", str(seed)),
        *("--max-examples", "3", "--no-color", "--warnings", "off"),
        *("--continue-on-failure", "--request-timeout", "20", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The folder that holds the document, with streams as OpenAPI 3.2 has them: each event is checked."""
    text = (ROOT / "gen" / "openapi.json").read_text()
    streams = r'"schema": \{[^{}]*"Server-sent events."\n\s+\},\n(\s+)"x-itemSchema"'
    text, count = re.subn(streams, r'"itemSchema"', text)
    assert count == 4
    (tmp_path / "openapi.json").write_text(text.replace('"openapi": "3.1.1"', '"openapi": "3.2.0"'))
    (tmp_path / "schemathesis.toml").write_text(configuration())
    return tmp_path


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_key_finds_only_what_is_described(
    unlimited: Up, first: Account, provider: FakeOpenAI, document: Path, seed: int
):
    output = await fuzzed(unlimited, document, first.key, seed=seed)
    assert "No issues found" in output, output


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_admin_finds_only_what_is_described(
    unlimited: Up, first: Account, provider: FakeOpenAI, document: Path, seed: int
):
    output = await fuzzed(
        unlimited, document, first.token, "--include-path-regex", PEOPLE, seed=seed
    )
    assert "No issues found" in output, output


@pytest.mark.parametrize(
    ("said", "instead", "operation", "found"),
    [
        (
            r'"next_page_token": \{\n\s+"type": "string"',
            '"next_page_token": {"type": "integer"',
            "ListItems",
            "Response violates schema",
        ),
        (
            r'"price": \{\n\s+"type": "number"',
            '"price": {"type": "string"',
            "CreateItem",
            "Schema-violating request accepted",
        ),
        (
            r'"token": \{\n\s+"type": "string"',
            '"token": {"type": "integer"',
            "StreamReply",
            "SSE event payload violates content schema",
        ),
    ],
    ids=["answer", "body", "event"],
)
async def test_what_is_not_described_is_found(
    unlimited: Up,
    first: Account,
    provider: FakeOpenAI,
    document: Path,
    said: str,
    instead: str,
    operation: str,
    found: str,
):
    file = document / "openapi.json"
    text, count = re.subn(said, instead, file.read_text())
    assert count
    file.write_text(text)
    output = await fuzzed(unlimited, document, first.key, "--include-operation-id", operation)
    assert found in output, output


def test_checks_are_excepted_for_few_operations():
    excepting = {each.name: list(excepted(each)) for each in OPERATIONS if list(excepted(each))}
    assert 10 < len(excepting) < len(OPERATIONS) / 2
    assert not {"CreateItem", "CreateChat", "Login", "CreateTask", "ListModels"} & set(excepting)
