"""The REST surface and the settings that were promised to users, as tables, against what there is."""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.settings import LocalSettings
from tests.contract.described import ROOT
from tests.contract.test_readme import described, is_served, settings

# What is called | who may | what it asks for | what it answers.
#
# `open` is anyone, `any` an access token or an API key, `people` an access token alone, `admin` that of an
# admin, `bring` anyone who brings a provider's key. Of what is asked, `?` marks what may be left out, and `/`
# stands between fields of which exactly one is wanted. Of what is answered, `.` leads into an object or each
# object of a list, and a type with `/` is the content's, where that is no JSON.
SURFACE = """
POST /auth/register | open | username? email password | id username email role created_at
POST /auth/login | open | username/email password | access_token token_type expires_in refresh_token
POST /auth/token | open | username? password? grant_type? refresh_token? | access_token token_type expires_in refresh_token
POST /auth/refresh | open | refresh_token | access_token token_type expires_in refresh_token
POST /auth/logout | people | |
GET /auth/me | people | | id username email role created_at
POST /auth/password | people | current_password new_password |
GET /auth/sessions | people | page_size? page_token? | sessions.id sessions.created_at next_page_token
DELETE /auth/sessions/{session_id} | people | |
GET /.well-known/jwks.json | open | | keys.kty keys.kid keys.x

POST /chat | any | message/messages system_prompt? chat_id? model? max_tokens? temperature? store? api_key? on_disconnect? request_id? | id chat_id message model usage.prompt_tokens usage.completion_tokens usage.total_tokens finish_reason generation_id
POST /chat/conversation | any | message/messages model? max_tokens? temperature? store? api_key? | id message model usage.total_tokens finish_reason generation_id
POST /api/v1/chat | any | message/messages model? max_tokens? temperature? store? api_key? | id message model usage.total_tokens finish_reason generation_id
POST /chat/stream | any | message/messages system_prompt? chat_id? model? max_tokens? temperature? store? api_key? on_disconnect? request_id? | generation_id seq token done full_text finish_reason usage.total_tokens error.code error.reason error.message
POST /api/v1/chat/stream | any | message/messages model? max_tokens? temperature? store? api_key? on_disconnect? request_id? | generation_id seq token done full_text finish_reason usage.total_tokens error.reason
POST /api/chat | bring | developer_message? user_message chat_history? model? api_key? | text/plain
POST /chat/background | any | message/messages system_prompt? chat_id? model? max_tokens? temperature? store? | task_id status
GET /chat/tasks/{task_id} | any | | task_id status result.message result.usage.total_tokens error.reason
DELETE /chat/tasks/{task_id} | any | | task_id status
POST /chats | any | title? | id title created_at updated_at
GET /chats | any | page_size? page_token? | chats.id chats.title chats.created_at chats.updated_at next_page_token
GET /conversations | any | page_size? page_token? | chats.id chats.title next_page_token
GET /chats/{chat_id} | any | | id title created_at updated_at
PATCH /chats/{chat_id} | any | title | id title created_at updated_at
DELETE /chats/{chat_id} | any | |
GET /chats/{chat_id}/messages | any | page_size? page_token? | messages.role messages.content messages.created_at next_page_token
POST /api/v1/summarize | any | text max_length? style? model? | summary model usage.total_tokens generation_id
POST /api/v1/translate | any | text source_language? target_language model? | translation source_language target_language model usage.total_tokens generation_id
GET /v1/provider-credentials | people | page_size? page_token? | provider_credentials.provider provider_credentials.created_at next_page_token
POST /v1/provider-credentials | people | provider api_key | provider created_at
DELETE /v1/provider-credentials/{provider} | people | |

GET /v1/generations | any | page_size? page_token? status? chat_id? key_id? | generations.id generations.status next_page_token
GET /v1/generations/{generation_id} | any | | id status reason model provider chat_id text finish_reason usage.total_tokens basis created_at ended_at
GET /v1/generations/{generation_id}/events | any | after_seq? | generation_id seq token done error.reason
POST /v1/generations/{generation_id}:cancel | any | | id status ended_at

POST /api/v1/api-keys | people | name rate_limit_per_minute? token_limit_per_minute? allowed_models? expires_at? monthly_budget_usd? total_budget_usd? soft_budget_usd? | id name key key_prefix is_active rate_limit_per_minute token_limit_per_minute allowed_models expires_at monthly_budget_usd created_at last_used_at
GET /api/v1/api-keys | people | page_size? page_token? | api_keys.id api_keys.name api_keys.key_prefix api_keys.is_active next_page_token
GET /api/v1/api-keys/{key_id} | people | | id name key_prefix is_active rate_limit_per_minute created_at last_used_at
PATCH /api/v1/api-keys/{key_id} | people | name? rate_limit_per_minute? token_limit_per_minute? allowed_models? expires_at? monthly_budget_usd? | id name is_active rate_limit_per_minute
DELETE /api/v1/api-keys/{key_id} | people | |
POST /api/v1/api-keys/{key_id}:rotate | people | | id key key_prefix

GET /api/v1/usage/{key_id} | any | page_size? page_token? | records.request_id records.model records.provider records.prompt_tokens records.completion_tokens records.total_tokens records.cost_usd records.status records.latency_ms records.created_at next_page_token
GET /api/v1/usage/{key_id}/summary | any | days? | total_requests total_tokens total_prompt_tokens total_completion_tokens total_cost_usd period_start period_end
GET /v1/usage | any | page_size? page_token? | records.request_id records.model records.cost_usd next_page_token
GET /v1/usage/summary | any | days? group_by? | total_requests total_tokens total_cost_usd period_start period_end groups.name groups.total_tokens
GET /v1/usage/export | any | format? | text/csv
GET /v1/users/{user_id}/budget | admin | | monthly_budget_usd total_budget_usd soft_budget_usd spent_usd held_usd resets_at
PUT /v1/users/{user_id}/budget | admin | monthly_budget_usd? total_budget_usd? soft_budget_usd? | monthly_budget_usd total_budget_usd soft_budget_usd spent_usd held_usd resets_at
GET /v1/budget | any | | monthly_budget_usd total_budget_usd soft_budget_usd spent_usd held_usd resets_at

GET /items | any | page_size? page_token? | items.id items.name items.price next_page_token
POST /items | any | name description? price is_available? | id name description price is_available
GET /items/{item_id} | any | | id name description price is_available
PUT /items/{item_id} | any | name description? price is_available? | id name description price is_available
DELETE /items/{item_id} | any | |

GET /health | open | | status services providers
POST /v1/chat/completions | any | model messages stream? max_tokens? temperature? | id object choices usage
GET /v1/models | any | | object data.id data.aliases data.prompt_usd_per_million_tokens
GET /v1/models/{model_id} | any | | id object aliases prompt_usd_per_million_tokens completion_usd_per_million_tokens
"""
# Pages that the edge serves by itself, to anyone.
PAGES = ("/", "/api/health", "/docs", "/redoc", "/openapi.json")
CHOICES = {
    ("POST /api/v1/summarize", "style"): {"concise", "detailed", "bullet_points"},
    ("GET /v1/usage/summary", "group_by"): {"day", "model", "key"},
    ("POST /chat/stream", "on_disconnect"): {"cancel", "finish"},
    ("POST /auth/token", "grant_type"): {"password", "refresh_token"},
}
ROLES = {"/chat/conversation": {"system", "user", "assistant"}, "/api/chat": {"user", "ai"}}
DEFAULTS = {
    **{"GATEWAY_PORT": "8000", "GRPC_PORT": "8443", "KHESHT_HOME": ".khesht"},
    **{"RATE_LIMIT_PER_MINUTE": "60", "MESSAGE_LIMIT": "10000", "HISTORY_LIMIT": "50"},
    **{"CORS_ORIGINS": "*", "ANONYMOUS_BYOK": "true", "APP_ENV": "development"},
}
VARIABLES = {
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "GROQ_API_KEY", "HF_TOKEN", "DATABASE_URL", "DB_HOST"),
    *("DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME", "REDIS_URL", "SECRET_KEY", "APP_ENV"),
    *("RATE_LIMIT_PER_MINUTE", "DEBUG", "LOG_LEVEL", "CORS_ORIGINS", "MODELS_FILE"),
}
ANYONE = [{"password": []}, {"bearer": []}, {"key": []}]
PEOPLE = [{"password": []}, {"bearer": []}]
WHO = {"open": [], "any": ANYONE, "people": PEOPLE, "admin": PEOPLE, "bring": [{}, *ANYONE]}
DOCUMENT: dict[str, Any] = json.loads((ROOT / "gen" / "openapi.json").read_text())


@dataclass(frozen=True)
class Row:
    """A line of SURFACE."""

    call: str
    who: str
    asks: tuple[str, ...]
    answers: tuple[str, ...]

    @property
    def told(self) -> dict[str, Any]:
        """The operation in the document."""
        verb, path = self.call.split(" ")
        assert path in DOCUMENT["paths"], f"no {path}"
        assert verb.lower() in DOCUMENT["paths"][path], f"no {self.call}"
        found: dict[str, Any] = DOCUMENT["paths"][path][verb.lower()]
        return found


def rows() -> Iterator[Row]:
    for line in SURFACE.strip().splitlines():
        if line:
            call, who, asks, answers = (part.strip() for part in line.split("|"))
            yield Row(call, who, tuple(asks.split()), tuple(answers.split()))


ROWS = list(rows())


def whole(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema itself, or that which it refers to or whose objects it lists."""
    if "$ref" in schema:
        return whole(DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    return whole(schema["items"]) if "items" in schema else schema


def merged(schema: dict[str, Any]) -> dict[str, Any]:
    """What all forms of a body have: of those that each wants, which ones as `either`."""
    if "anyOf" not in schema:
        return schema
    forms = [whole(each) for each in schema["anyOf"]]
    required = [set(form["required"]) for form in forms]
    common = set.intersection(*required)
    properties: dict[str, Any] = {}
    for form in forms:
        for name, field in form["properties"].items():
            choices = properties.get(name, {}).get("enum", []) + field.get("enum", [])
            properties[name] = field | ({"enum": choices} if choices else {})
    return {
        "properties": properties,
        "required": sorted(common),
        "either": [sorted(each - common) for each in required],
    }


def asked_by(row: Row) -> dict[str, Any]:
    """The schema of what `row` asks for, in a body or in a query."""
    if "requestBody" in row.told:
        (content,) = row.told["requestBody"]["content"].values()
        return merged(whole(content["schema"]))
    parameters = [each for each in row.told.get("parameters", []) if each["in"] == "query"]
    return {"properties": {each["name"]: each["schema"] for each in parameters}}


def answered_by(row: Row) -> dict[str, Any]:
    """The schema of what `row` answers: of each event's data where that is a stream."""
    content = row.told["responses"]["200"]["content"]
    if "application/json" in content:
        return whole(content["application/json"]["schema"])
    event = content["text/event-stream"]["x-itemSchema"]
    return whole(event["properties"]["data"]["contentSchema"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_who_may_call_it(row: Row):
    assert row.told["security"] == WHO[row.who]
    assert ("unless an admin calls" in row.told["description"]) is (row.who == "admin")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_it_asks_for_the_fields(row: Row):
    schema = asked_by(row)
    fields, required = schema.get("properties", {}), set(schema.get("required", []))
    for ask in row.asks:
        names = ask.rstrip("?").split("/")
        assert set(names) <= set(fields), row.call
        if len(names) > 1:
            assert schema["either"] == [[name] for name in names]
        else:
            assert (names[0] in required) is not ask.endswith("?"), ask
    assert required <= set(row.asks), row.call


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_it_answers_the_fields(row: Row):
    content = row.told["responses"]["200"]["content"]
    for answer in row.answers:
        if "/" in answer:
            assert list(content) == [answer]
            continue
        schema = answered_by(row)
        for name in answer.split("."):
            assert name in schema["properties"], f"{row.call}: no {answer}"
            schema = whole(schema["properties"][name])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_lists_come_in_pages(row: Row):
    lists = (
        "next_page_token" in answered_by(row).get("properties", {})
        if row.answers and "/" not in row.answers[0]
        else False
    )
    assert lists is ("next_page_token" in row.answers)
    assert lists is ("page_size?" in row.asks) is ("page_token?" in row.asks)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.call)
def test_headers_of_generations_are_named_where_they_are_taken_and_sent(row: Row):
    makes = row.call.startswith("POST /") and (
        "model?" in row.asks or row.call == "POST /v1/chat/completions"
    )
    follows = row.call == "GET /v1/generations/{generation_id}/events"
    headers = [each["name"] for each in row.told.get("parameters", []) if each["in"] == "header"]
    assert ("Idempotency-Key" in headers) is makes
    assert ("Last-Event-ID" in headers) is follows
    assert ("X-Provider-Key" in headers) is (row.call == "POST /v1/chat/completions")
    assert ("X-Generation-Id" in row.told["responses"]["200"]["headers"]) is (makes or follows)


@pytest.mark.parametrize(("call", "field"), CHOICES)
def test_choices_are_these(call: str, field: str):
    (row,) = [each for each in ROWS if each.call == call]
    told = asked_by(row)["properties"][field]
    told = told["anyOf"][0] if "anyOf" in told else told  # The other is null.
    assert set(told["enum"]) == CHOICES[call, field]


def test_roles_are_these():
    for path, roles in ROLES.items():
        (row,) = [each for each in ROWS if each.call == f"POST {path}"]
        fields = asked_by(row)["properties"]
        turn = whole(fields["messages" if "messages" in fields else "chat_history"])
        assert roles <= set(turn["properties"]["role"]["enum"])


def test_api_keys_may_come_in_a_header_of_their_own():
    scheme = DOCUMENT["components"]["securitySchemes"]["key"]
    assert (scheme["in"], scheme["name"]) == ("header", "X-API-Key")


@pytest.mark.parametrize("path", PAGES)
def test_the_edge_serves_the_pages(path: str):
    assert is_served(path)


def test_the_surface_is_whole():
    described = {
        f"{verb.upper()} {path}" for path, item in DOCUMENT["paths"].items() for verb in item
    }
    assert {row.call for row in ROWS} == described
    assert len(ROWS) == len(described)


def test_settings_have_their_names_and_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert settings() >= VARIABLES | set(DEFAULTS)
    assert {name: described()[name] for name in DEFAULTS} == DEFAULTS
    monkeypatch.chdir(tmp_path)
    for name in settings():
        monkeypatch.delenv(name, raising=False)
    read = LocalSettings.read()
    assert (read.gateway_port, read.grpc_port, read.home) == (8000, 8443, Path(".khesht"))


def test_state_and_secrets_are_kept_out_of_git():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {".khesht/", ".env", ".venv/"} <= {each.lstrip("/") for each in ignored}


def test_the_models_file_has_the_providers_and_the_aliases():
    file = tomllib.loads((ROOT / "services" / "chat" / "models.toml").read_text())
    providers = {model["provider"] for model in file["models"]}
    aliases = {alias for model in file["models"] for alias in model.get("aliases", [])}
    assert providers == {"echo", "openai", "groq", "huggingface"}
    assert {"fast", "smart"} <= aliases
    assert file["default"][-1] == "echo"


@pytest.mark.parametrize("service", ["auth", "chat", "items", "keys", "usage"])
def test_stubs_are_imported_as_khesht_service_v1(service: str):
    assert list((ROOT / "gen" / "python" / "khesht" / service / "v1").glob("*_pb2_grpc.py"))


def test_the_parts_and_the_targets_of_make_are_there():
    parts = ("protos", "services", "gateway", "deploy", "tests", "docker-compose.yml", "Dockerfile")
    assert [name for name in parts if not (ROOT / name).exists()] == []
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    assert {"run", "test", "test-browser"} <= targets
