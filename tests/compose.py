"""docker-compose.yml as Compose understands it, as far as the file goes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
# Settings without which the file is refused.
WANTED = {
    "SECRET_KEY": "a secret of the tests, which nothing else has",
    "DB_PASSWORD": "p@ss:/word",
}
_VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
JSON = dict[str, Any]


def read(name: str = "docker-compose.yml") -> JSON:
    """The file with its anchors resolved, and `${…}` as it stands."""
    found: JSON = yaml.safe_load((ROOT / name).read_text())
    return found


def filled(value: Any, given: Mapping[str, str]) -> Any:
    """`value` with each `${…}` replaced by what is `given`, or by its default.

    Raises KeyError for one that has to be given.
    """
    if isinstance(value, dict):
        return {name: filled(each, given) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, given) for each in value]
    return (
        _VARIABLE.sub(lambda found: _one(found, given), value) if isinstance(value, str) else value
    )


def variables(value: object) -> set[str]:
    """The settings of the user that stand in `value`."""
    return {name for name, _, _ in _VARIABLE.findall(str(value))}


def mounts(service: JSON) -> dict[str, tuple[str, bool]]:
    """By path in the container: the volume or path that is there, and whether it is read only."""
    found = {}
    for each in service.get("volumes", []):
        if isinstance(each, dict):
            found[each["target"]] = each["source"], each.get("read_only", False)
        else:
            source, target, *mode = each.split(":")
            found[target] = source, mode == ["ro"]
    return found


def _one(found: re.Match[str], given: Mapping[str, str]) -> str:
    name, operator, default = found.groups()
    value = given.get(name)
    if value is not None and (value or not (operator or "").startswith(":")):
        return value
    if operator is None or operator.endswith("?"):
        raise KeyError(name)
    return str(default)
