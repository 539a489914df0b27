"""The document: an operation for each binding of each RPC, from the contracts and the access tables."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from google.api import http_pb2

from mesh.access import Caller, Model, Rule
from scripts.openapi import refusals, written
from scripts.openapi.contracts import ROOT, Contracts, Field, Method, verb_and_path
from scripts.openapi.phrases import PHRASES
from scripts.openapi.schemas import Schema, Schemas

_RAW = "google.api.HttpBody"
_ANY: list[dict[str, list[str]]] = [{"password": []}, {"bearer": []}, {"key": []}]


def document(contracts: Contracts) -> dict[str, Any]:
    """The OpenAPI 3.1 document. Raises ValueError for what it could not describe."""
    schemas = Schemas(contracts)
    schemas.components |= {
        "Error": written.ERROR,
        "OpenAIError": written.OPENAI_ERROR,
        **written.SCHEMAS,
    }
    rules = access_rules({method.package for method in contracts.methods})
    paths: dict[str, dict[str, Any]] = {}
    for method in contracts.methods:
        for number, binding in enumerate(method.bindings):
            verb, path = verb_and_path(binding)
            made = _Operation(contracts, schemas, method, binding, rules[method.path]).made()
            name = re.sub(r"\W+", "_", path).strip("_")
            made["operationId"] = f"{method.name}_{name}" if number else method.name
            paths.setdefault(path, {})[verb] = made
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "khesht",
            "version": project["version"],
            "summary": project["description"],
            "description": written.ABOUT,
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": _tag(name), "description": text} for name, text in contracts.services.items()
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "headers": written.HEADERS,
            "securitySchemes": written.SECURITY_SCHEMES,
        },
    }


def access_rules(packages: set[str]) -> dict[str, Rule]:
    """The rules of all methods of the services in `packages`, by full name."""
    found: dict[str, Rule] = {}
    for package in sorted(packages):
        access = import_module(f"services.{package}.access")
        rules: Mapping[str, Rule] = (
            access.rules(lambda _: Model("")) if hasattr(access, "rules") else access.RULES
        )
        found.update(rules)
    return found


class _Operation:
    """One binding of one RPC."""

    def __init__(
        self,
        contracts: Contracts,
        schemas: Schemas,
        method: Method,
        binding: http_pb2.HttpRule,
        rule: Rule,
    ) -> None:
        self._contracts, self._schemas = contracts, schemas
        self._method, self._binding, self._rule = method, binding, rule
        _, path = verb_and_path(binding)
        self._in_path: list[str] = re.findall(r"\{(\w+)\}", path)
        self._fields = {field.name: field for field in contracts.messages[method.request].fields}

    def made(self) -> dict[str, Any]:
        """The operation, but for its id."""
        method = self._method
        text = re.sub(r"(?<=[.\s])\s*Open\.", "", method.comment).strip()
        made: dict[str, Any] = {
            "tags": [_tag(method.service)],
            "summary": re.split(r"\.(?:\s|$)", text, maxsplit=1)[0],
            "description": text,
        }
        if parameters := list(self._parameters()):
            made["parameters"] = parameters
        if self._binding.body:
            made["requestBody"] = {"required": self._wants_body(), "content": self._request()}
        made["responses"] = {"200": self._answer(), **dict(self._refusals())}
        made["security"] = self._security()
        return made

    def _parameters(self) -> Iterator[Schema]:
        for name in self._in_path:
            yield self._parameter(self._fields[name], "path")
        if not self._binding.body:
            for name, field in self._fields.items():
                if name not in self._in_path:
                    yield self._parameter(field, "query")
        for name, told in written.ASKED.items():
            repeats = name == "Idempotency-Key" and self._rule.model is not None
            if repeats or f"`{name}`" in self._method.comment:
                yield {"name": name, "in": "header", **told}

    def _parameter(self, field: Field, place: str) -> Schema:
        schema = self._schemas.field(field, read=True)
        needed = {"required": True} if place == "path" else {}
        text = schema.pop("description", "")
        return {"name": field.name, "in": place, "description": text, **needed, "schema": schema}

    def _request(self) -> Schema:
        method = self._method
        if self._is_raw(method.request, self._binding.body):
            content = self._written(written.REQUESTS)
        elif self._binding.body == "*":
            schema = self._schemas.reference(method.request, read=True, without=self._in_path)
            content = {"application/json": schema}
        else:
            schema = self._schemas.field(self._fields[self._binding.body], read=True)
            content = {"application/json": schema}
        return _content(content, written.EXAMPLES.get(method.name, (None, None))[0])

    def _wants_body(self) -> bool:
        """Whether there must be a body; without one, all fields are left out.

        What replaces something says so by an empty object (gateway/names.lua).
        """
        if self._binding.WhichOneof("pattern") == "put":
            return True
        if self._is_raw(self._method.request, self._binding.body) or self._binding.body != "*":
            return True
        schema = self._schemas.reference(self._method.request, read=True, without=self._in_path)
        made = self._schemas.components[schema["$ref"].rsplit("/", 1)[1]]
        return "required" in made or "anyOf" in made

    def _answer(self) -> Schema:
        method = self._method
        if self._is_raw(method.response, self._binding.response_body):
            content = self._written(written.RESPONSES)
            text = "The answer."
            if "text/event-stream" in content:
                text += f" With `stream`: {written.STREAMED}"
        else:
            schema = self._schemas.reference(method.response, read=False)
            if method.streams:
                content = {"text/event-stream": written.event(written.as_json(schema))}
                text = written.STREAMED
            else:
                content, text = {"application/json": schema}, "The answer."
        headers = ["X-Request-Id"]
        fields = self._contracts.messages[method.response].fields
        if self._rule.model is not None or any(each.name == "generation_id" for each in fields):
            headers += ["X-Generation-Id", "X-Khesht-Warning"]
        if self._rule.model is not None:
            headers += ["RateLimit", "RateLimit-Policy", "X-Khesht-Model"]
        if self._rule.openai:
            headers.append("OpenAI-Processing-Ms")
        if self._rule.openai and self._rule.model is not None:
            headers += [name for name in written.HEADERS if name.startswith("X-RateLimit-")]
        example = written.EXAMPLES.get(method.name, (None, None))[1]
        return {
            "description": text,
            "headers": _headers(headers),
            "content": _content(content, example),
        }

    def _written(self, bodies: Mapping[str, dict[str, Schema]]) -> dict[str, Schema]:
        if self._method.name not in bodies:
            raise ValueError(
                f"{self._method.name}: say in scripts/openapi/written.py what its bytes are"
            )
        return bodies[self._method.name]

    def _is_raw(self, message: str, part: str) -> bool:
        """Whether a body is bytes of any type: the message itself, or its field `part`."""
        if message == _RAW:
            return True
        fields = self._contracts.messages[message].fields
        return any(field.name == part and field.type_name == _RAW for field in fields)

    def _refusals(self) -> Iterator[tuple[str, Schema]]:
        by_code: dict[int, list[str]] = {}
        for reason in self._reasons():
            by_code.setdefault(self._contracts.reasons[reason].code, []).append(reason)
        for code, reasons in sorted(by_code.items()):
            lines = [f"- `{each}`: {self._contracts.reasons[each].meaning}" for each in reasons]
            other = written.OTHER_ANSWERS.get((self._method.name, code))
            error = _ref("schemas", "OpenAIError" if self._rule.openai else "Error")
            schema = self._schemas.reference(other, read=False) if other else error
            schemas = [schema, error] if other else [schema]
            headers = ["X-Request-Id", *(["Retry-After"] if code in (429, 503) else [])]
            if self._rule.openai and code in (409, 429, 503):
                headers += ["Retry-After-Ms", "X-Should-Retry"]
            begun = any(each.startswith(("PROVIDER_", "GENERATION_")) for each in reasons)
            if begun and self._rule.model is not None:
                headers.append("X-Generation-Id")
            yield (
                str(code),
                {
                    "description": "\n".join([f"{PHRASES[code]}.", "", *lines]),
                    "headers": _headers(headers),
                    "content": _content(
                        {"application/json": {"oneOf": schemas} if other else schema},
                        refusals.example(self._contracts, reasons, openai=self._rule.openai),
                    ),
                },
            )

    def _reasons(self) -> list[str]:
        """Why a call can be refused: by what its comment says, and by what holds for all like it."""
        known = self._contracts.reasons
        common = {"MALFORMED_REQUEST", "UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED"}
        if self._fields:
            common.add("INVALID_FIELDS")
        if "page_token" in self._fields:
            common.add("INVALID_PAGE_TOKEN")
        if self._in_path:
            common.add("UNKNOWN_PATH")
        if self._binding.body:
            common.add("TOO_LARGE")
        if self._rule.caller is not Caller.OPEN:
            common |= {"MISSING_CREDENTIALS", "INVALID_CREDENTIALS"}
        if self._rule.caller is Caller.PERSON:
            common.add("NOT_PERMITTED")
        if self._rule.model is not None:
            common |= {"RATE_LIMITED", "MODEL_NOT_ALLOWED"}
        said = " ".join(self._said())
        named = {each for each in known if re.search(rf"`{each}`", said)}
        starts = re.findall(r"`([A-Z_]+_)…`", said)
        named |= {each for each in known if each.startswith(tuple(starts))}
        return [each for each in known if each in common | named]

    def _said(self) -> Iterator[str]:
        """The comment of the RPC, and of those it names: their errors are its own."""
        yield self._method.comment
        for other in self._contracts.methods:
            if re.search(rf"\b{other.name}\b", self._method.comment):
                yield other.comment

    def _security(self) -> list[dict[str, list[str]]]:
        match self._rule.caller:
            case Caller.OPEN:
                return []
            case Caller.PERSON:
                return [{"password": []}, {"bearer": []}]
            case Caller.OPTIONAL:
                return [{}, *_ANY]
            case _:
                return _ANY


def _tag(service: str) -> str:
    return service.removesuffix("Service").lower()


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _headers(names: list[str]) -> Schema:
    return {name: _ref("headers", name) for name in names}


def _content(schemas: Mapping[str, Schema], example: object = None) -> Schema:
    """Bodies by content type. What is given of a stream is the schema of one event."""
    shown = {} if example is None else {"example": example}
    return {
        kind: {"schema": written.EVENTS, "x-itemSchema": schema}
        if kind == "text/event-stream"
        else {"schema": schema, **shown}
        for kind, schema in schemas.items()
    }
