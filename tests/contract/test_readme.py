"""What README, CONTRIBUTING and docs/ say, against what there is."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cli import topology
from cli.settings import LocalSettings
from mesh.config import ServiceSettings
from mesh.local.certificates import Identity
from tests.contract.described import ROOT, methods

README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "services/*/README.md", "gateway/*.md")
    for path in ROOT.glob(pattern)
)
FOLDERS = "mesh|services|cli|gateway|protos|gen|tests|docs|scripts|bench"
# The service that a newcomer makes by following docs/add-a-service.md.
EXAMPLE = "notes"


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def section(title: str) -> str:
    (found,) = re.findall(rf"(?ms)^## {title}\n(.*?)(?=^## |\Z)", README)
    return found


def code_of(text: str) -> str:
    """What stands in backticks, in line or in blocks."""
    return "\n".join(re.findall(r"(?s)```.*?```|`[^`]+`", text))


def described() -> dict[str, str]:
    """Settings in the README's table, and their defaults, "" for none."""
    rows = re.findall(r"(?m)^\| `([A-Z_]+)` \| (.*?) \|", section("Settings"))
    return {name: default.strip("`") if "`" in default else "" for name, default in rows}


def configs() -> dict[str, type[ServiceSettings]]:
    return {name: import_module(f"services.{name}.config").Config for name in topology.SERVICES}


def told_by_up() -> set[str]:
    """Settings of services that are not a user's to set."""
    nowhere = Identity(Path(), Path(), Path())
    addresses = dict.fromkeys(topology.SERVICES, "127.0.0.1:1")
    admin = "postgresql://khesht@127.0.0.1:1/khesht"
    told = topology.environment("chat", addresses, nowhere, admin, "x" * 32, {})
    return {*told, "LAME_DUCK"}


def settings() -> set[str]:
    """Settings that the code reads and a user may set."""
    of_khesht = set(re.findall(r"""["']([A-Z][A-Z_]+)["']""", text_of("cli/settings.py")))
    of_services = {name.upper() for config in configs().values() for name in config.model_fields}
    return of_khesht | (of_services - told_by_up())


def templates() -> set[str]:
    """Paths of all HTTP rules, as the contracts write them."""
    return {path.replace("=**}", "}") for method in methods() for _, path in method.bindings}


def is_served(path: str) -> bool:
    """Whether a contract or a page of the edge has `path`.

    A variable of the shell, or a field, stands for any one part.
    """
    if f"match: {{path: {path}," in text_of("gateway/envoy.yaml"):
        return True
    asked = re.sub(r"\$[A-Z_]+|\{\w+\}", "x", path)
    patterns = [re.sub(r"\{\w+\}", "[^/]+", template) for template in templates()]
    return any(re.fullmatch(pattern, asked) for pattern in patterns)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_is_named_exists(document: str) -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", text_of("Makefile")))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code_of(text_of(document))))
    assert {"run", "test"} <= named
    assert named <= targets


def test_every_make_target_is_explained_to_contributors() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):.*## ", text_of("Makefile")))
    assert targets - set(re.findall(r"\bmake\s+([a-z-]+)", text_of("CONTRIBUTING.md"))) <= {
        *("setup", "test-unit", "test-contract", "test-integration")
    }


def test_the_table_has_exactly_the_settings_of_the_code() -> None:
    assert set(described()) == settings()


def test_the_sample_file_has_exactly_the_settings_of_the_code() -> None:
    sample = dict(re.findall(r"(?m)^#?([A-Z_]+)=(.*)$", text_of(".env.example")))
    assert set(sample) == settings()
    shown = {
        name: "" if default == "generated" else default for name, default in described().items()
    }
    assert sample == shown


def test_defaults_of_services_are_those_of_the_code() -> None:
    for config in configs().values():
        for name, field in config.model_fields.items():
            told = described().get(name.upper(), "")
            if not isinstance(field.default, (int, float, str)) or not told:
                continue
            assert TypeAdapter(type(field.default)).validate_python(told) == field.default, name


def test_defaults_of_khesht_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in settings():
        monkeypatch.delenv(name, raising=False)
    read, told = LocalSettings.read(), described()
    assert str(read.home) == told["KHESHT_HOME"]
    assert (read.gateway_port, read.grpc_port) == (
        int(told["GATEWAY_PORT"]),
        int(told["GRPC_PORT"]),
    )
    assert read.cors_origins == told["CORS_ORIGINS"]
    assert (read.database_url, read.secret_key) == (None, None)


def test_every_path_that_is_named_is_served() -> None:
    named = set(re.findall(r"\$API(/[^\s\"'?|]*)", README))
    named |= set(re.findall(r"(?:GET|POST|PUT|PATCH|DELETE) (/[^\s`?]*)", README))
    assert len(named) > 20
    assert [path for path in sorted(named) if not is_served(path)] == []


def test_every_path_that_is_served_is_named() -> None:
    assert set(re.findall(r"(/[a-z.][\w./{}:-]*)", code_of(section("Paths")))) >= templates()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_that_is_linked_or_named_exists(document: str) -> None:
    text, folder = text_of(document), (ROOT / document).parent
    linked = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [path for path in linked if not (folder / path).exists()] == []
    named = re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)
    missing = [path for path in named if EXAMPLE not in path and not (ROOT / path).exists()]
    assert missing == []


def test_every_command_that_is_named_exists() -> None:
    commands = set(
        re.findall(r'@app\.command\(?"?([a-z-]*)"?\)\ndef (\w+)', text_of("cli/main.py"))
    )
    there = {given or function for given, function in commands}
    named = set(re.findall(r"(?m)^\| `khesht ([a-z-]+)`", section("Commands")))
    assert named == there
