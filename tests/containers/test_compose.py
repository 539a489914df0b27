"""The compose files as the tool itself reads them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Protocol

import pytest
import yaml

from tests import compose
from tests.compose import ROOT, WANTED

FILES = ("docker-compose.yml", "deploy/tls.yaml")
TLS = {
    "EDGE_TLS_CERT_FILE": "/certificates/edge.crt",
    "EDGE_TLS_KEY_FILE": "/certificates/edge.key",
}


def tool() -> tuple[str, ...]:
    """`docker compose`, or `docker-compose` of old, which has `config` without an engine too."""
    plugin = ["docker", "compose", "version"]
    if shutil.which("docker") and not subprocess.run(plugin, capture_output=True).returncode:
        return ("docker", "compose")
    assert shutil.which("docker-compose"), "`make check-containers` installs it"
    return ("docker-compose",)


class Config(Protocol):
    """What the tool makes of files, by settings that are in a file .env."""

    def __call__(self, *files: str, **settings: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def config(tmp_path: Path) -> Config:
    def run(*files: str, **settings: str) -> subprocess.CompletedProcess[str]:
        written = tmp_path / ".env"
        written.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        named = [part for file in files for part in ("--file", file)]
        return subprocess.run(
            [*tool(), "--project-directory", ROOT, "--env-file", written, *named, "config"],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    return run


def test_the_tool_takes_the_file_and_understands_it_as_the_tests_do(config: Config):
    given = config(*FILES[:1], **WANTED, WORKERS="3", APP_ENV="production")
    assert given.returncode == 0, given.stderr
    understood = yaml.safe_load(given.stdout)["services"]
    ours = compose.filled(
        compose.read()["services"], {**WANTED, "WORKERS": "3", "APP_ENV": "production"}
    )
    assert understood.keys() == ours.keys()
    for name, service in ours.items():
        for key in ("command", "environment", "cap_drop", "read_only", "security_opt", "user"):
            assert understood[name].get(key) == service.get(key), f"{name}: {key}"
        waits = {n: each["condition"] for n, each in service.get("depends_on", {}).items()}
        read = understood[name].get("depends_on", {})
        assert {n: each["condition"] for n, each in read.items()} == waits
    assert int(understood["worker"]["deploy"]["replicas"]) == 3


@pytest.mark.parametrize("variable", sorted(WANTED))
def test_without_a_secret_the_file_is_refused_in_words(config: Config, variable: str):
    given = config(*FILES[:1], **{**WANTED, variable: ""})
    assert given.returncode != 0
    assert f"put {variable}=" in given.stderr


def test_the_file_for_tls_adds_to_the_other(config: Config):
    given = config(*FILES, **WANTED, **TLS)
    assert given.returncode == 0, given.stderr
    understood = yaml.safe_load(given.stdout)["services"]
    for name in ("prepare", "edge"):
        text = json.dumps(understood[name]["volumes"])
        assert all(f'"source": "{path}"' in text for path in TLS.values())
    told = understood["prepare"]["environment"]
    assert told["EDGE_TLS_CERT_FILE"] == "/run/edge/tls.crt"
    assert understood["edge"]["ports"]
    assert config(*FILES, **WANTED).returncode != 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("    restart: unless", "    restrat: unless"), ("cap_drop: [ALL]", "cap_drop: ALL")],
    ids=["key", "type"],
)
def test_the_tool_refuses_what_is_wrong(config: Config, tmp_path: Path, right: str, wrong: str):
    text = (ROOT / FILES[0]).read_text()
    assert right in text
    (tmp_path / "wrong.yml").write_text(text.replace(right, wrong))
    assert config(str(tmp_path / "wrong.yml"), **WANTED).returncode != 0
