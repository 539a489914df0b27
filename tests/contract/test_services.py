"""What every service's folder promises: its rooms, its settings on paper, its migrations."""

import re
from importlib import import_module
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from cli import topology
from mesh.config import ServiceSettings
from tests.contract.described import ROOT, SERVICES

FILES = ("__init__", "__main__", "access", "config", "tables", "wiring")
# A room that outgrew one file is a package of the same name.
ROOMS = ("commands", "domain", "servicer", "store")
_VERSION = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.py$")


def folder(service: str) -> Path:
    return ROOT / "services" / service


def settings(service: str) -> type[ServiceSettings]:
    found: type[ServiceSettings] = import_module(f"services.{service}.config").Config
    return found


def variables_in(readme: Path) -> set[str]:
    """Variables that stand in code marks in a document."""
    return set(re.findall(r"`([A-Z][A-Z0-9_]+)`", readme.read_text()))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_rooms_of_all_services(service: str):
    missing = [name for name in FILES if not (folder(service) / f"{name}.py").is_file()]
    for room in ROOMS:
        one = (folder(service) / f"{room}.py").is_file()
        many = (folder(service) / room / "__init__.py").is_file()
        if one == many:
            missing.append(room)
    assert not missing
    assert (folder(service) / "README.md").is_file()
    assert (folder(service) / "migrations" / "versions").is_dir()


def test_every_service_is_started():
    found = {each.parent.name for each in (ROOT / "services").glob("*/__main__.py")}
    assert found == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_says_in_one_sentence_what_it_is_for(service: str):
    sentence = import_module(f"services.{service}").__doc__
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_of_a_service_names_each_setting_of_its_own(service: str):
    own = set(settings(service).model_fields) - set(ServiceSettings.model_fields)
    named = variables_in(folder(service) / "README.md")
    assert {name.upper() for name in own} <= named


def test_the_settings_of_every_service_are_named_in_the_readme_of_the_smallest():
    named = variables_in(folder("items") / "README.md")
    assert {name.upper() for name in ServiceSettings.model_fields} <= named


@pytest.mark.parametrize("service", SERVICES)
def test_the_readme_of_a_service_says_who_calls_each_method(service: str):
    text = (folder(service) / "README.md").read_text()
    access = import_module(f"services.{service}.access")
    rules = access.rules(lambda _: None) if service == "chat" else access.RULES
    assert not [name for name in rules if not re.search(rf"\b{name.rsplit('/')[-1]}\b", text)]


@pytest.mark.parametrize("service", SERVICES)
def test_migrations_are_one_line_of_numbered_steps(service: str):
    config = Config()
    config.set_main_option("script_location", str(topology.migrations(service)))
    scripts = ScriptDirectory.from_config(config)
    steps = list(scripts.walk_revisions())
    assert len(scripts.get_heads()) == 1
    for step in steps:
        name = _VERSION.match(Path(step.path).name)
        assert name, step.path
        assert name[1] == step.revision
        assert step.down_revision == (None if name[1] == "0001" else f"{int(name[1]) - 1:04}")
    assert len(steps) == len(list((folder(service) / "migrations/versions").glob("*.py")))
