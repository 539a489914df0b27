"""Clients that are generated from the OpenAPI document, as their generators' users make them, call every operation."""

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients import installed
from tests.clients.running import told
from tests.fake_openai import FakeOpenAI
from tests.mesh.asked import Asked, asked
from tests.mesh.described import OPERATIONS, Operation
from tests.mesh.running import ROOT, Account, Up, new_account

PROGRAMS = Path(__file__).parent / "programs"
DOCUMENT = ROOT / "gen" / "openapi.json"
# After these an account is not what it was.
SPOILS = ("ChangePassword", "Logout", "RevokeSession", "DeleteProviderCredential")
STREAMS = {each.name for each in OPERATIONS if "text/event-stream" in each.answers}
# openapi-python-client reads one kind of answer of an operation: the JSON, and no stream beside it.
STREAMS_BESIDE_JSON = {each.name for each in OPERATIONS if {"application/json"} < each.answers}
TSCONFIG = {
    "compilerOptions": {
        **{"noEmit": True, "strict": True, "skipLibCheck": True, "types": []},
        **{"module": "nodenext", "target": "es2022", "lib": ["es2022", "dom", "dom.asynciterable"]},
        **{"allowImportingTsExtensions": True},
    }
}

Calls = dict[str, Asked]


@pytest.fixture
async def calls(up: Up, account: Account, admin: str, provider: FakeOpenAI) -> Calls:
    """A call of every operation, by name."""
    made = {}
    for operation in OPERATIONS:
        caller = await new_account(up) if operation.name in SPOILS else account
        made[operation.name] = await asked(up, caller, admin, operation)
    return made


def answer_of(operation: Operation) -> str:
    """The name of the schema that a good answer has, or `text`."""
    content = operation.told["responses"]["200"]["content"]
    if "application/json" not in content:
        return "text"
    return str(content["application/json"]["schema"]["$ref"].rsplit("/", 1)[1])


# openapi-python-client


@pytest.fixture(scope="module")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a package that openapi-python-client made, without any warning."""
    folder = tmp_path_factory.mktemp("python")
    programs = installed.programs("openapi-python-client")
    generate = ("-m", "openapi_python_client", "generate", "--meta", "none", "--fail-on-warning")
    made = subprocess.run(
        (programs / "python", *generate, "--path", DOCUMENT, "--output-path", "khesht_client"),
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


async def python_told(
    folder: Path, up: Up, account: Account, calls: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    (folder / "calls.json").write_text(json.dumps(calls))
    program = PROGRAMS / "generated_python.py"
    python = await asyncio.to_thread(installed.python, "openapi-python-client")
    found: list[dict[str, Any]] = await told(
        (python, program, folder, folder / "calls.json"), up, account, folder
    )
    return found


def as_json(name: str, call: Asked, **more: Any) -> dict[str, Any]:
    return {"operation": name, "names": call.names, "body": call.body, "token": call.token} | more


async def test_a_python_client_calls_every_operation(
    up: Up, account: Account, calls: Calls, python_client: Path
):
    asking = [as_json(name, call) for name, call in calls.items()]
    found = await python_told(python_client, up, account, asking)
    for operation, answer in zip(OPERATIONS, found, strict=True):
        assert answer["status"] == 200, operation.name
        expected = answer_of(operation)
        assert answer["type"] == ("str" if expected == "text" else expected), operation.name
        if expected != "ChatCompletion":  # Providers add fields of their own.
            assert answer["more"] == [], operation.name
        if operation.name in STREAMS - STREAMS_BESIDE_JSON:
            assert answer["text"].startswith("data: {"), operation.name
            assert '"done":true' in answer["text"]


async def test_a_python_client_reads_errors_in_the_shape_of_their_path(
    up: Up, account: Account, calls: Calls, python_client: Path
):
    wanted = {"CreateReply": "Error", "CreateChatCompletion": "OpenAIError", "GetItem": "Error"}
    asking = [as_json(name, calls[name], token="ai_nonsense") for name in wanted]
    found = await python_told(python_client, up, account, asking)
    assert [(each["status"], each["type"]) for each in found] == [
        (401, each) for each in wanted.values()
    ]


def test_no_body_is_of_any_type_to_a_python_client(python_client: Path):
    functions = list((python_client / "khesht_client" / "api").rglob("*.py"))
    assert len(functions) > len(OPERATIONS)
    assert not [each.name for each in functions if "body: Any" in each.read_text()]


# openapi-typescript and openapi-fetch


def typescript_call(operation: Operation, call: Asked, **more: Any) -> str:
    """The statement that makes a call, and holds its answer to the type that the document gives."""
    expected = answer_of(operation)
    options: dict[str, Any] = {"headers": {"Authorization": f"Bearer {call.token}"}}
    if call.names:
        numbers = {name: int(value) for name, value in call.names.items() if name == "item_id"}
        options["params"] = {"path": call.names | numbers}
    if call.body is not None:
        options["body"] = call.body | more
    if operation.name == "IssueToken":
        options["headers"]["Content-Type"] = "application/x-www-form-urlencoded"
    of = f'Read<"{expected}">' + (" | string" if operation.name in STREAMS_BESIDE_JSON else "")
    if operation.name in STREAMS and (expected == "text" or more):
        options["parseAs"], of = "stream", "ReadableStream<Uint8Array> | null"
    elif expected == "text":
        options["parseAs"], of = "text", "string"
    return f"""{{
  const {{ data, response }} = await client.{operation.verb}({json.dumps(operation.path)}, {json.dumps(options)});
  const answer: {of} | undefined = data;
  told.push({{ operation: {json.dumps(operation.name)}, status: response.status, answer: await whole(answer) }});
}}
"""


async def typescript_told(up: Up, account: Account, statements: list[str]) -> list[dict[str, Any]]:
    """What a program of these statements tells, once the compiler has found its types right."""
    modules = await asyncio.to_thread(installed.node)
    bin = installed.programs("node")
    here = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}"}
    types = (bin / "node", modules / "node_modules/openapi-typescript/bin/cli.js", DOCUMENT)
    compiler = (bin / "node", modules / "node_modules/typescript/bin/tsc")
    (modules / "tsconfig.json").write_text(json.dumps(TSCONFIG | {"files": ["generated.ts"]}))
    program = modules / "generated.ts"
    start = (PROGRAMS / "generated_typescript.ts").read_text()
    program.write_text("".join([start, *statements, "console.log(JSON.stringify(told));\n"]))

    def made(*command: str | Path) -> None:
        done = subprocess.run(
            command, cwd=modules, env=os.environ | here, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    await asyncio.to_thread(made, *types, "-o", "khesht.d.ts")
    await asyncio.to_thread(made, *compiler, "--project", "tsconfig.json")
    found: list[dict[str, Any]] = await told((bin / "node", program), up, account, modules)
    return found


async def test_a_typescript_client_calls_every_operation(up: Up, account: Account, calls: Calls):
    statements = [typescript_call(each, calls[each.name]) for each in OPERATIONS]
    streamed = next(each for each in OPERATIONS if each.name == "CreateChatCompletion")
    statements.append(typescript_call(streamed, calls[streamed.name], stream=True))
    found = await typescript_told(up, account, statements)
    assert len(found) == len(OPERATIONS) + 1
    for operation, answer in zip([*OPERATIONS, streamed], found, strict=True):
        assert answer["status"] == 200, answer
        assert answer["answer"] is not None, operation.name
        if operation.name in STREAMS - STREAMS_BESIDE_JSON:
            assert '"done":true' in answer["answer"]
    assert "data: [DONE]" in found[-1]["answer"]


async def test_a_typescript_client_is_told_of_wrong_bodies_by_its_compiler(
    up: Up, account: Account
):
    wrong = {
        "/auth/login": [{"password": "p"}, {"username": 7, "password": "p"}],
        "/chat": [{}, {"mesage": "Hi"}, {"messages": "Hi"}],
        "/items": [{"name": "without a price"}],
    }
    bodies = [(path, json.dumps(body)) for path, each in wrong.items() for body in each]
    unused = [
        f'// @ts-expect-error\nconst wrong{number} = () => client.POST("{path}", {{ body: {body} }});\n'
        for number, (path, body) in enumerate(bodies)
    ]
    assert await typescript_told(up, account, unused) == []
    with pytest.raises(AssertionError, match="Unused '@ts-expect-error'"):
        right = '// @ts-expect-error\nclient.POST("/chat", { body: { message: "Hi" } });\n'
        await typescript_told(up, account, [right])
