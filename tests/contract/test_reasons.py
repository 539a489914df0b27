"""Every reason that code gives is in a contract, and every one in a contract is given."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh import errors, status
from services.chat.domain import provider
from tests.contract.described import ROOT, SERVICES, reasons

_CLASSES = {
    name
    for name, value in {**vars(errors), **vars(provider)}.items()
    if isinstance(value, type) and issubclass(value, errors.MeshError)
}
_REASON = re.compile(r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$")
_EXAMPLE = re.compile(r"^Example: `(.*)`$", re.MULTILINE)


def given(path: Path) -> Iterator[str]:
    """The reasons that a module makes errors with."""
    tree = ast.parse(path.read_text())
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = (
            call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        )
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if name in ("invalid", "InvalidRequest"):
            yield from literals(keywords.get("reason", ast.Constant("INVALID_FIELDS")), tree)
        elif name in _CLASSES:
            yield from literals(keywords.get("reason", call.args[0] if call.args else None), tree)


def literals(node: ast.expr | None, module: ast.Module) -> set[str]:
    """A reason that is written out, or all that are written in the module, where it is not."""
    if isinstance(node, ast.Constant):
        return {str(node.value)}
    if isinstance(node, ast.Name) and node.id == "reason":  # A parameter, passed on.
        return set()
    constants = (each.value for each in ast.walk(module) if isinstance(each, ast.Constant))
    found = {each for each in constants if isinstance(each, str) and _REASON.match(each)}
    assert found, "a reason from nowhere"
    return found


def given_in(folder: Path) -> dict[str, Path]:
    return {
        reason: path.relative_to(ROOT)
        for path in sorted(folder.rglob("*.py"))
        for reason in given(path)
    }


def given_by_the_edge() -> set[str]:
    rows = re.findall(r'\{"([A-Z_]+)", "([A-Z_]+)", ', (ROOT / "gateway/errors.lua").read_text())
    assert len(rows) > 10
    return {reason for _, reason in rows}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gives_reasons_of_its_own_contract_or_of_the_common_one(service: str):
    known = reasons()[service] | reasons()["mesh"]
    unknown = {r: p for r, p in given_in(ROOT / "services" / service).items() if r not in known}
    assert not unknown


def test_the_runtime_gives_common_reasons_and_passes_on_those_of_keys():
    known = reasons()["mesh"] | reasons()["keys"]
    unknown = {r: p for r, p in given_in(ROOT / "mesh").items() if r not in known}
    assert not unknown


def test_the_edge_gives_common_reasons():
    assert given_by_the_edge() <= set(reasons()["mesh"])


def test_every_reason_in_a_contract_is_given_somewhere():
    everywhere = given_by_the_edge() | set(given_in(ROOT / "mesh"))
    for package, documented in reasons().items():
        own = set() if package == "mesh" else set(given_in(ROOT / "services" / package))
        if package == "mesh":
            own = set().union(*(given_in(ROOT / "services" / each) for each in SERVICES))
        assert set(documented) <= own | everywhere, package


def test_no_reason_stands_in_two_contracts():
    names = [reason for documented in reasons().values() for reason in documented]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("package", "reason"), [(p, r) for p, documented in reasons().items() for r in documented]
)
def test_the_comment_of_a_reason_says_what_it_means_and_gives_an_example(package: str, reason: str):
    comment = "\n".join(line.strip() for line in reasons()[package][reason].splitlines())
    (example,) = _EXAMPLE.findall(comment)
    shown = json.loads(example)
    assert set(shown) == {"code", "reason", "message"}
    assert shown["reason"] == reason
    assert shown["code"] in {code for code, _ in status.HTTP.values()} | {405, 413, 415}
    assert shown["message"]
    assert not comment.startswith("Example")


def test_the_walk_sees_what_errors_are_made_of(tmp_path: Path):
    module = tmp_path / "module.py"
    module.write_text(
        "raise errors.NotFound('A_B', 'text')\n"
        "raise invalid('field', 'text', reason='C_D')\n"
        "raise errors.AlreadyExists(*taken)\n"
        "taken = ('E_F', 'text')\n"
        "print('G_H is not one')\n"
    )
    assert set(given(module)) == {"A_B", "C_D", "E_F"}
