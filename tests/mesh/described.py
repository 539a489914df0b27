"""Answers against what the OpenAPI document says of their operations."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator

from tests.mesh.running import ROOT, Answer

DOCUMENT: dict[str, Any] = json.loads((ROOT / "gen" / "openapi.json").read_text())


@dataclass(frozen=True)
class Operation:
    """A verb on a path, and what is said of it."""

    verb: str
    path: str
    told: dict[str, Any]

    @property
    def name(self) -> str:
        """Its id in the document."""
        return str(self.told["operationId"])

    @property
    def open(self) -> bool:
        """Whether it wants no credential."""
        return not self.told["security"] or {} in self.told["security"]

    @property
    def for_people(self) -> bool:
        """Whether API keys may not call it."""
        return not self.open and {"key": []} not in self.told["security"]

    @property
    def answers(self) -> set[str]:
        """Content types of a good answer."""
        return set(self.told["responses"]["200"]["content"])

    def whole(self) -> dict[str, Any]:
        """What is said of it and of its body, with the schemas that these refer to in their places."""
        asked = {name: self.told.get(name) for name in ("parameters", "requestBody")}
        return dict(_resolved(asked))

    def check(self, answer: Answer) -> None:
        """Raises AssertionError when `answer` is none that the document describes."""
        assert str(answer.status) in self.told["responses"], f"{self.name}: {answer}"
        described = self.told["responses"][str(answer.status)]
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in described["content"], f"{self.name}: {answer}"
        schema = _schema(described["content"][kind])
        for body in _bodies(kind, answer.text):
            wrong = list(Draft202012Validator(schema).iter_errors(body))
            assert not wrong, f"{self.name}: {wrong[0].message}: {body}"
        seldom = {
            "Retry-After",
            "Retry-After-Ms",
            "X-Should-Retry",
            "X-Khesht-Warning",
            "X-Khesht-Model",
        }
        seldom |= {f"X-RateLimit-{what}-Tokens" for what in ("Limit", "Remaining", "Reset")}
        if answer.status != 200:  # Only some failures are of a generation that had begun.
            seldom.add("X-Generation-Id")
        for name in set(described["headers"]) - seldom:
            assert name in answer.headers, f"{self.name}: no {name}"


def operations() -> Iterator[Operation]:
    """All operations of the document."""
    for path, item in DOCUMENT["paths"].items():
        for verb, told in item.items():
            yield Operation(verb.upper(), path, told)


OPERATIONS = list(operations())


def _schema(content: dict[str, Any]) -> dict[str, Any]:
    """The schema of a body or of an event's data, with all that it may refer to."""
    schema: dict[str, Any] = content["schema"]
    if "x-itemSchema" in content:
        data = content["x-itemSchema"]["properties"]["data"]
        choices = (data, *data.get("anyOf", ()))
        schema = next(each["contentSchema"] for each in choices if "contentSchema" in each)
    return schema | {"components": DOCUMENT["components"]}


def _resolved(part: Any) -> Any:
    if isinstance(part, list):
        return [_resolved(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolved(DOCUMENT["components"]["schemas"][part["$ref"].rsplit("/", 1)[1]])
    return {name: _resolved(each) for name, each in part.items()}


def _bodies(kind: str, text: str) -> list[Any]:
    if kind == "application/json":
        return [json.loads(text)]
    if kind != "text/event-stream":
        return [text]
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [json.loads(line) for line in lines if not line.startswith(":") and line != "[DONE]"]
