"""schemathesis over the OpenAPI document: no answer that it does not describe, and none that is a fault of ours."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fake_openai import FakeOpenAI, models_file
from tests.mesh.running import ROOT, Account, Up, new_account, started

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
)


@pytest.fixture(scope="module")
async def unlimited(
    tmp_path_factory: pytest.TempPathFactory, provider_server: FakeOpenAI
) -> AsyncIterator[Up]:
    """A mesh whose limits are out of the way."""
    folder = tmp_path_factory.mktemp("unlimited")
    async with started(
        folder / "home",
        MODELS_FILE=models_file(folder),
        OPENAI_API_KEY="sk-the-operators-own-key",
        OPENAI_BASE_URL=provider_server.url,
        RATE_LIMIT_PER_MINUTE="100000",
    ) as running:
        yield running


@pytest.fixture(scope="module")
async def first(unlimited: Up) -> Account:
    """The first account, which is an admin."""
    return await new_account(unlimited)


async def fuzzed(up: Up, folder: Path, credential: str, *arguments: str) -> str:
    """What schemathesis says at the end; its seed is always the same."""
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).parent / "schemathesis"), "run", str(folder / "openapi.json")),
        *("--url", up.url, "--header", f"Authorization: Bearer {credential}"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", "3", "--seed", "1", "--no-color", "--warnings", "off"),
        *("--continue-on-failure", "--request-timeout", "20", *arguments),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """The folder that holds the document."""
    (tmp_path / "openapi.json").write_text((ROOT / "gen" / "openapi.json").read_text())
    return tmp_path


async def test_a_key_finds_only_what_is_described(
    unlimited: Up, first: Account, provider: FakeOpenAI, document: Path
):
    output = await fuzzed(unlimited, document, first.key)
    assert "No issues found" in output, output


async def test_an_admin_finds_only_what_is_described(
    unlimited: Up, first: Account, provider: FakeOpenAI, document: Path
):
    # What only people may call. Logging out would end the run's own session.
    people = r"^/(auth/(me|password|sessions)|api/v1/api-keys|v1/(provider-credentials|users))"
    output = await fuzzed(unlimited, document, first.token, "--include-path-regex", people)
    assert "No issues found" in output, output


async def test_what_is_not_described_is_found(
    unlimited: Up, first: Account, provider: FakeOpenAI, document: Path
):
    file = document / "openapi.json"
    file.write_text(
        re.sub(
            r'"next_page_token": \{\n\s+"type": "string"',
            '"next_page_token": {"type": "integer"',
            file.read_text(),
        )
    )
    output = await fuzzed(unlimited, document, first.key, "--include-operation-id", "ListItems")
    assert "Response violates schema" in output, output
