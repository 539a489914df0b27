"""Programs by contract: the wheel of the client, and the image of descriptors by itself."""

import asyncio
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import grpc
import pytest

from tests.clients import installed
from tests.clients.running import run, told
from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import ROOT, Account, Up

PROGRAMS = Path(__file__).parent / "programs"
README = (ROOT / "client/README.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, ROOT / "scripts/dist.py", folder], check=True)
    (built,) = folder.glob("khesht-*.whl")
    return built


@pytest.fixture(scope="module")
def client(wheel: Path) -> Path:
    """The interpreter of an environment that has the wheel and what it asks for."""
    python = installed.python("client")
    pip = ("-m", "pip", "install", "--disable-pip-version-check", "--quiet")
    asked = ("--no-index", "--force-reinstall", "--no-deps", wheel)
    subprocess.run([python, *pip, *asked], check=True)
    # All that it asks for is there by the lock.
    subprocess.run([python, "-m", "pip", "check"], check=True)
    return python


def test_the_wheel_has_the_stubs_alone_and_their_types(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = (name for name in names if name.endswith("METADATA"))
        version = re.search(r"(?m)^Version: (.+)$", archive.read(about).decode())
    project = re.search(r'(?m)^version = "(.+)"$', (ROOT / "pyproject.toml").read_text())
    assert version
    assert project
    assert version[1] == project[1]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"khesht"}
    assert {"khesht/py.typed", "khesht/khesht.binpb"} < set(names)
    assert not any("entry_points" in name or "_internal_" in name for name in names)


def example(language: str) -> str:
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```$", README)
    assert found
    return found[1]


async def test_the_readme_of_the_wheel(
    client: Path, up: Up, account: Account, provider: FakeOpenAI, tmp_path: Path
):
    program = tmp_path / "example.py"
    program.write_text(example("python").replace("localhost:8443", f"127.0.0.1:{up.grpc}"))
    assert await run((client, program), up, account, tmp_path) == "Hello, world!"
    strict = (client, "-m", "mypy", "--strict", program)
    assert "no issues" in await run(strict, up, account, tmp_path)
    program.write_text(program.read_text().replace('model="fast"', "model=5"))
    with pytest.raises(AssertionError, match="incompatible type"):
        await run(strict, up, account, tmp_path)


async def test_protoc_makes_stubs_of_the_image_alone(up: Up, account: Account, tmp_path: Path):
    here = {
        "localhost:8000": f"127.0.0.1:{up.gateway}",
        "protoc ": f"{sys.executable} -m grpc_tools.protoc ",
    }
    code = re.sub("|".join(here), lambda found: here[found[0]], example("bash"))
    await run(("bash", "-euo", "pipefail", "-c", code), up, account, tmp_path)
    assert (tmp_path / "khesht/chat/v1/chat_service_pb2.py").exists()


@pytest.fixture
async def grpc_node(up: Up, account: Account, tmp_path: Path):
    async def does(what: str):
        folder = await asyncio.to_thread(installed.node)
        program = folder / "grpc_node.mjs"
        program.write_bytes((PROGRAMS / "grpc_node.mjs").read_bytes())
        node = installed.programs("node") / "node"
        at = f"127.0.0.1:{up.grpc}"
        return await told((node, program, what), up, account, tmp_path, KHESHT_GRPC=at)

    return does


async def test_grpc_js_streams_by_the_image_alone(grpc_node, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b", "c"), pause=0.2)
    assert await grpc_node("stream") == {"tokens": ["a", "b", "c"]}


async def test_grpc_js_gets_the_details_of_an_error(grpc_node, provider: FakeOpenAI):
    told = await grpc_node("no_model")
    assert told == {"code": grpc.StatusCode.NOT_FOUND.value[0], "details": 1}
