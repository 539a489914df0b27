"""The OpenAPI document against the contracts and the access tables it is made from."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from khesht.buf.validate import validate_pb2
from mesh.access import Caller
from mesh.status import HTTP
from scripts.openapi.contracts import Contracts, Field, read
from scripts.openapi.document import access_rules, document
from scripts.openapi.schemas import Schemas
from tests.contract.described import ROOT, SERVICES, methods

DOCUMENT: dict[str, Any] = json.loads((ROOT / "gen" / "openapi.json").read_text())
PUBLIC = [each for each in methods() if not each.internal]
OPENAI = {"CreateChatCompletion", "ListModels", "GetModel"}
VERBS = {"get", "put", "post", "patch", "delete"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for verb, operation in item.items():
            yield verb, path, operation


def operation(verb: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][verb]
    return found


def schema(name: str) -> dict[str, Any]:
    """A component without what is said of it and of its fields."""
    found = json.loads(json.dumps(DOCUMENT["components"]["schemas"][name]))
    for each in (found, *found.get("properties", {}).values()):
        each.pop("description", None)
    return found


def plain(path: str) -> str:
    return path.replace("=**}", "}")


def test_it_is_valid():
    validate(DOCUMENT)


def test_it_is_what_the_contracts_say_now():
    assert document(read()) == DOCUMENT


def test_it_has_every_binding_of_every_public_rpc_and_nothing_else():
    bound = [(verb.lower(), plain(path)) for each in PUBLIC for verb, path in each.bindings]
    assert sorted((verb, path) for verb, path, _ in operations()) == sorted(bound)
    assert len(bound) > 40


def test_operations_have_names_of_their_own_that_begin_with_the_rpc():
    names = {operation["operationId"] for _, _, operation in operations()}
    assert len(names) == sum(1 for _ in operations())
    for each in PUBLIC:
        name = each.name.rsplit("/", 1)[1]
        first, *others = each.bindings
        assert operation(first[0].lower(), plain(first[1]))["operationId"] == name
        for verb, path in others:
            assert operation(verb.lower(), plain(path))["operationId"].startswith(f"{name}_")


def test_an_operation_wants_the_credentials_that_the_access_tables_say():
    rules = access_rules(set(SERVICES))
    wanted = {
        Caller.OPEN: [],
        Caller.OPTIONAL: [{}, {"password": []}, {"bearer": []}, {"key": []}],
        Caller.PERSON: [{"password": []}, {"bearer": []}],
        Caller.ANY: [{"password": []}, {"bearer": []}, {"key": []}],
    }
    for each in PUBLIC:
        for verb, path in each.bindings:
            told = operation(verb.lower(), plain(path))
            assert told["security"] == wanted[rules[each.name].caller], each.name
            refused = {"401"} & set(told["responses"])
            assert refused or rules[each.name].caller is Caller.OPEN, each.name


def test_every_path_variable_is_described_and_no_other():
    for _, path, told in operations():
        named = [each["name"] for each in told.get("parameters", []) if each["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)


def test_every_refusal_has_the_one_envelope_and_says_its_reasons():
    seen = 0
    for _, _, told in operations():
        assert {"400", "503", "504"} <= set(told["responses"])
        for code, answer in told["responses"].items():
            if code == "200":
                continue
            assert re.search(r"- `[A-Z_]+`: \w", answer["description"])
            shape = "OpenAIError" if told["operationId"] in OPENAI else "Error"
            schema = json.dumps(answer["content"]["application/json"])
            assert f'"#/components/schemas/{shape}"' in schema
            seen += 1
    assert seen > 200


def test_every_refusal_has_an_example_of_its_status_and_one_of_its_reasons():
    seen = 0
    for _, _, told in operations():
        for code, answer in told["responses"].items():
            if code == "200":
                continue
            content = answer["content"]["application/json"]
            whole = content["schema"] | {"components": DOCUMENT["components"]}
            Draft202012Validator(whole).validate(content["example"])
            error = content["example"]["error"]
            assert f"- `{error['reason']}`:" in answer["description"]
            assert code == "413" or HTTP[error["status"]][0] == int(code)
            openai = told["operationId"] in OPENAI
            assert ("param" in error) is openai
            assert openai or error["code"] == int(code)
            seen += 1
    assert seen > 200


def test_examples_of_refusals_are_what_services_say():
    def shown(verb: str, path: str, code: str) -> dict[str, Any]:
        answer = operation(verb, path)["responses"][code]
        error: dict[str, Any] = answer["content"]["application/json"]["example"]["error"]
        return error

    taken = shown("post", "/auth/register", "409")
    assert (taken["status"], taken["reason"]) == ("ALREADY_EXISTS", "EMAIL_TAKEN")
    cancelled = shown("post", "/chat", "409")
    assert (cancelled["status"], cancelled["reason"]) == ("ABORTED", "GENERATION_CANCELLED")
    assert shown("post", "/auth/login", "429")["details"][1]["retry_delay"] == "540s"
    wrong = shown("post", "/chat", "400")["details"][1]["field_violations"]
    assert wrong == [{"field": "name", "description": "must be at least 1 character"}]
    unknown = shown("get", "/v1/models/{model_id}", "404")
    assert (unknown["code"], unknown["param"]) == ("model_not_found", "model")


def test_reasons_come_from_what_is_said_of_the_rpc_and_of_those_it_names():
    said = operation("post", "/auth/register")["responses"]["409"]["description"]
    assert re.findall(r"`([A-Z_]+)`:", said) == ["EMAIL_TAKEN", "USERNAME_TAKEN"]
    form = operation("post", "/auth/token")["responses"]
    assert re.findall(r"`([A-Z_]+)`:", form["401"]["description"]) == [
        "WRONG_PASSWORD",
        "INVALID_REFRESH_TOKEN",
    ]
    assert set(operation("get", "/items/{item_id}")["responses"]) == {
        *("200", "400", "401", "404", "503", "504")
    }


def test_what_calls_a_model_tells_of_its_limit():
    for path in ("/chat", "/v1/chat/completions"):
        told = operation("post", path)["responses"]
        assert {"RateLimit", "RateLimit-Policy", "X-Generation-Id"} <= set(told["200"]["headers"])
        assert "Retry-After" in told["429"]["headers"]
        assert "X-Generation-Id" in told["409"]["headers"]
    assert "429" not in operation("get", "/items")["responses"]


def test_a_stream_is_described_by_its_event():
    told = operation("post", "/chat/stream")["responses"]["200"]
    data = told["content"]["text/event-stream"]["x-itemSchema"]["properties"]["data"]
    assert data["contentMediaType"] == "application/json"
    assert data["contentSchema"] == {"$ref": "#/components/schemas/StreamReplyResponse"}
    event = schema("StreamReplyResponse")
    assert event["required"] == ["generation_id", "seq"]
    assert {"token", "done", "error", "full_text", "usage"} <= set(event["properties"])


def test_every_stream_is_a_text_of_events_and_says_its_pings():
    streams = {}
    for _, _, told in operations():
        answer = told["responses"]["200"]
        if stream := answer["content"].get("text/event-stream"):
            streams[told["operationId"]] = stream
            assert "`: ping`" in answer["description"]
    assert sorted(streams) == [
        *("CreateChatCompletion", "FollowGeneration"),
        *("StreamReply", "StreamReply_api_v1_chat_stream"),
    ]
    for stream in streams.values():
        assert stream["schema"]["type"] == "string"  # No client can take the whole as an object.
        assert stream["x-itemSchema"]["required"] == ["data"]


def test_it_is_valid_by_openapi_3_2_where_streams_have_items():
    later = json.loads(json.dumps(DOCUMENT).replace('"x-itemSchema"', '"itemSchema"'))
    validate(later | {"openapi": "3.2.0"})


def test_a_form_is_described_as_a_form():
    (kind, content), *others = operation("post", "/auth/token")["requestBody"]["content"].items()
    assert (kind, others) == ("application/x-www-form-urlencoded", [])
    assert content["schema"] == {"$ref": "#/components/schemas/IssueTokenRequest"}
    assert schema("PasswordGrant")["required"] == ["username", "password"]
    # Without its `grant_type` a refresh token would be a login without a username.
    assert schema("RefreshTokenGrant")["required"] == ["grant_type", "refresh_token"]


def test_every_body_is_a_named_object_or_one_of_several():
    either = {}
    for _, _, told in operations():
        for content in told.get("requestBody", {}).get("content", {}).values():
            name = content["schema"]["$ref"].rsplit("/", 1)[1]
            found = DOCUMENT["components"]["schemas"][name]
            if "anyOf" in found:
                either[name] = [each["$ref"].rsplit("/", 1)[1] for each in found["anyOf"]]
                assert " or " in found["description"]
                assert all(schema(form)["type"] == "object" for form in either[name])
            else:
                assert found["type"] == "object"
    assert either == {
        "IssueTokenRequest": ["PasswordGrant", "RefreshTokenGrant"],
        "LoginRequest": ["LoginWithUsername", "LoginWithEmail"],
    } | {
        f"{name}Request": [f"{name}WithMessage", f"{name}WithMessages"]
        for name in ("CreateReply", "StreamReply", "CreateTask")
    }


@pytest.mark.parametrize(
    ("name", "good", "wrong"),
    [
        (
            "LoginRequest",
            [{"username": "ada", "password": "p"}, {"email": "a@b.c", "password": "p"}],
            [{"password": "p"}, {"username": "ada", "email": "a@b.c", "password": "p"}],
        ),
        (
            "CreateReplyRequest",
            [{"message": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}],
            [
                *({}, {"message": ""}, {"messages": []}, {"message": "Hi", "modle": "echo"}),
                {"message": "Hi", "messages": [{"role": "user", "content": "Hi"}]},
                {
                    "chat_id": "0198c2f4-7d7e-7c55-9a31-2f0f4c1f6b11",
                    "messages": [{"role": "user", "content": "Hi"}],
                },
            ],
        ),
    ],
)
def test_a_body_is_of_one_form_only(
    name: str, good: list[dict[str, object]], wrong: list[dict[str, object]]
):
    found = Draft202012Validator(
        DOCUMENT["components"]["schemas"][name] | {"components": DOCUMENT["components"]}
    )
    assert [found.is_valid(each) for each in good + wrong] == [True] * len(good) + [False] * len(
        wrong
    )


def test_what_is_read_has_the_limits_of_the_contract_and_wants_only_what_it_must():
    text = {"type": "string", "minLength": 1, "maxLength": 200}
    assert schema("CreateItemRequest") == {
        "type": "object",
        "properties": {
            "name": text | {"pattern": r"^[^\x00-\x1f\x7f]*$"},
            "description": {
                **{"type": ["string", "null"], "maxLength": 2000},
                "pattern": r"^[^\x00]*$",
            },
            "price": {
                **{"type": "number", "format": "double"},
                **{"minimum": 0, "maximum": 1_000_000_000},
            },
            "is_available": {"type": ["boolean", "null"]},
        },
        "required": ["name", "price"],
        "additionalProperties": False,
    }
    assert schema("Turn")["properties"]["role"] == {
        "type": "string",
        "enum": ["system", "developer", "user", "assistant"],
    }
    assert schema("LoginWithEmail")["required"] == ["email", "password"]
    assert schema("RegisterRequest")["required"] == ["email", "password"]


def test_a_body_leaves_out_what_is_in_the_path():
    assert set(schema("UpdateChatRequest")["properties"]) == {"title"}
    key = schema("UpdateApiKeyRequest")["properties"]
    assert "key_id" not in key
    assert key["update_mask"] == {"type": ["string", "null"]}
    assert key["expires_at"] == {"type": ["string", "null"], "format": "date-time"}
    assert (key["allowed_models"]["maxItems"], key["allowed_models"]["uniqueItems"]) == (50, True)


def test_a_body_may_be_left_out_where_all_of_its_fields_may():
    wanted = {
        told["operationId"]: told["requestBody"]["required"]
        for _, _, told in operations()
        if "requestBody" in told
    }
    left_out = {name for name, needed in wanted.items() if not needed}
    assert {"CreateChat", "Logout", "CancelGeneration", "RotateApiKey"} <= left_out
    assert not {"CreateReply", "CreateItem", "IssueToken", "CreateChatCompletion"} & left_out


def test_what_is_printed_has_all_fields_that_are_always_there():
    assert schema("Item") == {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "format": "int32"},
            "name": {"type": "string"},
            "description": {"type": "string"},
            "price": {"type": "number", "format": "double"},
            "is_available": {"type": "boolean"},
        },
        "required": ["id", "name", "price", "is_available"],
    }
    assert schema("GetHealthResponse")["properties"]["services"] == {
        "type": "object",
        "additionalProperties": {"type": "string"},
    }
    assert schema("CreateApiKeyResponse")["properties"]["last_used_at"] == {"type": "null"}


def test_numbers_in_a_query_have_their_bounds():
    told = operation("get", "/v1/usage/summary")["parameters"]
    days = next(each for each in told if each["name"] == "days")
    assert (days["in"], "required" in days) == ("query", False)
    assert days["schema"] == {"type": "integer", "format": "int32", "minimum": 0, "maximum": 366}


def test_examples_are_of_their_schemas():
    seen = 0
    for _, _, told in operations():
        bodies = [told.get("requestBody", {}), *told["responses"].values()]
        for content in (each for body in bodies for each in body.get("content", {}).values()):
            if "example" in content:
                whole = content["schema"] | {"components": DOCUMENT["components"]}
                Draft202012Validator(whole).validate(content["example"])
                seen += 1
    assert seen > 15
    error = DOCUMENT["components"]["schemas"]["Error"]
    Draft202012Validator(error).validate(error["examples"][0])


def test_a_limit_that_it_has_no_words_for_is_refused():
    made = FieldDescriptorProto(name="text", type=FieldDescriptorProto.TYPE_STRING, label=1)
    made.options.Extensions[validate_pb2.field].string.contains = "x"
    with pytest.raises(ValueError, match="text: a rule without words in JSON schema: contains"):
        Schemas(Contracts(b"")).field(Field(made, ""), read=True)


def test_phrases_of_statuses_are_those_of_rfc_9110_whatever_the_interpreter():
    told = {
        code: answer["description"].partition(".")[0]
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
        for code, answer in operation["responses"].items()
        if int(code) >= 400
    }
    # RFC 9110, section 15; 429 is of RFC 6585. Pythons before 3.13 say it otherwise for 413.
    assert told.pop("413") == "Content Too Large"
    assert told == {
        **{"400": "Bad Request", "401": "Unauthorized", "403": "Forbidden", "404": "Not Found"},
        **{"409": "Conflict", "429": "Too Many Requests", "503": "Service Unavailable"},
        "504": "Gateway Timeout",
    }
