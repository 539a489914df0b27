"""One envelope on every route: the routes are read from the contracts."""

import asyncio
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2

import khesht.auth.v1.auth_service_pb2 as auth_pb
import khesht.chat.v1.chat_service_pb2 as chat_pb
import khesht.items.v1.items_service_pb2 as items_pb
import khesht.keys.v1.keys_service_pb2 as keys_pb
import khesht.usage.v1.usage_service_pb2 as usage_pb
from mesh.local.home import Home
from tests.fake_openai import End, FakeOpenAI, Script
from tests.mesh.running import Account, Answer, Up

OPEN = {
    "/auth/register",
    "/auth/login",
    "/auth/token",
    "/auth/refresh",
    "/.well-known/jwks.json",
}
_FILES = (auth_pb, chat_pb, items_pb, keys_pb, usage_pb)
_STACK = re.compile(r"Traceback|File \"|127\.0\.0\.1|SELECT |INSERT |psycopg|sqlalchemy|/services/")


def routes() -> Iterator[tuple[str, str]]:
    """Verb and path of every binding of every public method, with an id in each place."""
    for file in _FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                rule = method.GetOptions().Extensions[annotations_pb2.http]
                for binding in (rule, *rule.additional_bindings):
                    verb = binding.WhichOneof("pattern")
                    path = getattr(binding, verb)
                    path = path.replace("{item_id}", "1").replace("{model_id=**}", "echo")
                    yield verb.upper(), re.sub(r"\{\w+\}", str(uuid.UUID(int=7)), path)


ROUTES = sorted(set(routes()))
BODIES = [route for route in ROUTES if route[0] in ("POST", "PUT", "PATCH")]


def check_envelope(answer: Answer, status: int, reason: str) -> dict[str, object]:
    """The error of an answer that has to be the one envelope, and nothing but words.

    On OpenAI's routes it has a `param`, and a `code` that is no number.
    """
    assert answer.headers["Content-Type"] == "application/json", answer.text
    assert set(answer.body) == {"error"}
    error: dict[str, object] = answer.body["error"]
    fields = {"code", "status", "reason", "message", "type", "details", "request_id"}
    if "param" in error:
        assert set(error) == {*fields, "param"}
        assert error["code"] is None or isinstance(error["code"], str)
    else:
        assert set(error) == fields
        assert error["code"] == status, answer.text
    assert (answer.status, error["reason"]) == (status, reason), answer.text
    assert error["request_id"] == answer.headers["X-Request-Id"]
    assert not _STACK.search(answer.text), answer.text
    return error


@pytest.mark.parametrize(("verb", "path"), ROUTES)
async def test_every_route_wants_a_credential_or_is_open(up: Up, verb: str, path: str):
    answer = await up.call(verb, path, {} if (verb, path) in BODIES else None)
    if path in OPEN or path == "/api/chat":  # Open to who brings a provider's key.
        assert answer.status in (200, 400)
    else:
        check_envelope(answer, 401, "MISSING_CREDENTIALS")


@pytest.mark.parametrize(("verb", "path"), [route for route in ROUTES if route[1] not in OPEN])
async def test_every_route_refuses_a_wrong_credential(up: Up, verb: str, path: str):
    body = {} if (verb, path) in BODIES else None
    for credential in ("ai_nonsense", "eyJhbGciOiJub25lIn0.e30.", "x" * 5000):
        answer = await up.call(verb, path, body, credential)
        if answer.status != 403:  # Keys may not manage keys, whichever they are.
            check_envelope(answer, 401, "INVALID_CREDENTIALS")


@pytest.mark.parametrize(("verb", "path"), [r for r in BODIES if r[1] != "/auth/token"])
async def test_every_route_with_a_body_refuses_what_is_no_json(up: Up, verb: str, path: str):
    for body in (b'{"a":', b"nonsense", b'{"a":"\xff"}', b"[" * 200):
        check_envelope(await up.call(verb, path, body), 400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(("verb", "path"), ROUTES)
async def test_every_route_refuses_an_unknown_query_field(up: Up, verb: str, path: str):
    answer = await up.call(verb, f"{path}?nonsense=1", {} if (verb, path) in BODIES else None)
    if path.startswith("/v1/models"):  # OpenAI's clients add some of their own.
        check_envelope(answer, 401, "MISSING_CREDENTIALS")
    else:
        error = check_envelope(answer, 400, "MALFORMED_REQUEST")
        assert "nonsense" in str(error["message"])


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/nothing"), ("PUT", "/nothing"), ("POST", "/static/x"), ("GET", "/chat/stream/x")],
)
async def test_an_unknown_path_is_404(up: Up, verb: str, path: str):
    check_envelope(await up.call(verb, path), 404, "UNKNOWN_PATH")


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("PUT", "/chat", "POST"),
        ("DELETE", "/items", "GET, POST"),
        ("POST", "/items/1?x=1", "DELETE, GET, PUT"),
        ("OPTIONS", "/items", "GET, POST"),
        ("GET", "/v1/generations/1:cancel", "POST"),
        ("POST", "/v1/models/meta-llama/Llama-3.3-70B-Instruct", "GET"),
        ("GET", "/v1/chat/completions", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/static/docs.js", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(up: Up, verb, path, allowed):
    answer = await up.call(verb, path)
    check_envelope(answer, 405, "WRONG_METHOD")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize(("verb", "path"), ROUTES)
async def test_every_route_tells_the_methods_it_takes(up: Up, verb: str, path: str):
    answer = await up.call("TRACE", path)
    check_envelope(answer, 405, "WRONG_METHOD")
    assert verb in answer.headers["Allow"].split(", ")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat", {"message": 5}, "message"),
        ("/chat", {"message": "Hi", "max_tokens": "many"}, "max_tokens"),
        ("/chat/conversation", {"messages": [{"role": "user", "content": {}}]}, "messages"),
        ("/items", {"name": "x", "price": "dear"}, "price"),
        ("/items", {"name": "x", "price": 10**400}, ""),
    ],
)
async def test_a_wrong_type_names_its_field(up: Up, account: Account, path, body, field):
    answer = await up.call("POST", path, body, account.key)
    error = check_envelope(answer, 400, "MALFORMED_REQUEST")
    assert field in str(error["message"])


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("/items", {"name": "", "price": -1}, {"name", "price"}),
        ("/items", {"name": "x"}, {"price"}),
        ("/chat", {"message": "Hi", "temperature": 9}, {"temperature"}),
        (
            "/chat/conversation",
            {"messages": [{"role": "king", "content": "x"}]},
            {"messages[0].role"},
        ),
        ("/chat", {"message": "x" * 10_001, "model": "echo"}, {"message"}),
        ("/chat/stream", {"message": "x" * 10_001, "model": "echo"}, {"message"}),
        ("/api/v1/api-keys", {"name": "x" * 101}, {"name"}),
    ],
)
async def test_wrong_fields_are_named(up: Up, account: Account, path, body, fields):
    answer = await up.call("POST", path, body, account.token)
    details = answer.body["error"]["details"]
    (bad,) = [d for d in details if d["@type"].endswith("google.rpc.BadRequest")]
    assert {violation["field"] for violation in bad["field_violations"]} == fields
    check_envelope(answer, 400, answer.reason)


async def test_bodies_over_the_limit_are_413(up: Up, account: Account):
    for path, size in (("/items", 300_000), ("/auth/login", 300_000), ("/chat", 21 << 20)):
        body = json.dumps({"message": "x" * size}).encode()
        check_envelope(await up.call("POST", path, body, account.key), 413, "TOO_LARGE")


async def test_a_foreign_chat_is_like_one_that_never_was(
    up: Up, account: Account, stranger: Account
):
    theirs = (await up.call("POST", "/chats", {"title": "mine"}, stranger.token)).body["id"]
    for verb, path, body in (
        ("GET", "/chats/{}", None),
        ("GET", "/chats/{}/messages", None),
        ("PATCH", "/chats/{}", {"title": "x"}),
        ("DELETE", "/chats/{}", None),
    ):
        answers = [
            await up.call(verb, path.format(chat_id), body, account.token)
            for chat_id in (theirs, uuid.uuid4())
        ]
        foreign, random = [check_envelope(a, 404, "CHAT_NOT_FOUND") for a in answers]
        assert foreign | {"request_id": ""} == random | {"request_id": ""}
    replies = [
        await up.call("POST", "/chat", {"message": "x", "chat_id": str(chat_id)}, account.key)
        for chat_id in (theirs, uuid.uuid4())
    ]
    foreign, random = [check_envelope(a, 404, "CHAT_NOT_FOUND") for a in replies]
    assert foreign | {"request_id": ""} == random | {"request_id": ""}
    assert (await up.call("GET", f"/chats/{theirs}", token=stranger.token)).status == 200


async def test_an_unknown_model_is_404_and_says_where_to_look(up: Up, account: Account):
    answer = await up.call("POST", "/chat", {"message": "Hi", "model": "gpt-99"}, account.key)
    error = check_envelope(answer, 404, "MODEL_NOT_FOUND")
    assert "/v1/models" in str(error["message"])


async def test_a_key_can_not_manage_keys_or_accounts(up: Up, account: Account):
    for verb, path in (("GET", "/api/v1/api-keys"), ("GET", "/auth/sessions")):
        check_envelope(await up.call(verb, path, token=account.key), 403, "NOT_PERMITTED")


async def test_the_providers_401_is_not_the_callers(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(status=401, body='{"error": {"message": "bad sk-the-operators"}}')
    for path in ("/chat", "/chat/stream"):
        answer = await up.call("POST", path, {"message": "Hi", "model": "fast"}, account.key)
        check_envelope(answer, 503, "PROVIDER_CREDENTIALS")
        assert "sk-" not in answer.text
        assert "X-Generation-Id" in answer.headers


async def test_a_provider_that_dies_midway_gives_an_error_as_last_event(
    up: Up, account: Account, provider: FakeOpenAI
):
    provider.script = Script(pieces=("a", "b"), pause=0.05, end=End.CUT)
    answer = await up.call("POST", "/chat/stream", {"message": "Hi", "model": "fast"}, account.key)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert [event.get("token") for event in events] == ["a", "b", None]
    error = events[-1]["error"]
    assert (error["code"], error["status"], error["reason"], error["type"]) == (
        503,
        "UNAVAILABLE",
        "PROVIDER_BROKE_OFF",
        "server_error",
    )
    assert error["details"][0]["reason"] == "PROVIDER_BROKE_OFF"


@pytest.mark.parametrize("name", ["a&b", "a|b", "a%b", "~", "Grpc-Encoding", "X-Trace-Bin"])
async def test_a_header_that_grpc_would_not_take_harms_nothing(up: Up, account: Account, name: str):
    assert (await up.call("GET", "/chats", token=account.key, **{name: "x"})).status == 200


async def test_browsers_of_listed_origins_may_call(up: Up):
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    answer = await up.call("OPTIONS", "/chat", **asked)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    evil = await up.call("OPTIONS", "/chat", **{**asked, "Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in evil.headers


async def test_native_grpc_on_the_rest_port_is_415(up: Up):
    answer = await up.call(
        "POST",
        "/khesht.items.v1.ItemsService/ListItems",
        b"\0\0\0\0\0",
        **{"Content-Type": "application/grpc"},
    )
    check_envelope(answer, 415, "UNSUPPORTED")


async def test_logs_hold_no_secret(up: Up, account: Account):
    await up.call(
        "POST", "/chat", {"message": "a-canary-in-a-prompt", "model": "echo"}, account.key
    )
    await up.call("GET", f"/chats?page_token={account.key}", token=account.key)
    logs = "".join(path.read_text() for path in Path(Home(up.home).logs).glob("*.log"))
    assert "/chats" in logs
    for secret in (account.key, account.token, "password123", "a-canary-in-a-prompt"):
        assert secret not in logs


def test_the_routes_were_found():
    assert len(ROUTES) > 30
    assert ("POST", "/api/v1/chat/stream") in ROUTES


async def test_large_pages_and_replies_arrive_whole(up: Up, account: Account):
    said = "x" * 6_000
    chat_id = None
    for _ in range(4):
        body = {"message": said, "model": "echo"} | ({"chat_id": chat_id} if chat_id else {})
        chat_id = (await up.call("POST", "/chat", body, account.key)).body["chat_id"]
    listed = await up.call("GET", f"/chats/{chat_id}/messages", token=account.key)
    assert [m["content"] for m in listed.body["messages"]] == [said] * 8


async def test_a_very_long_reply_ends_with_done(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("y" * 4_000,) * 150)
    answer = await up.call("POST", "/chat/stream", {"message": "Hi", "model": "fast"}, account.key)
    last = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    assert (last["done"], len(last["full_text"])) == (True, 600_000)
    whole = await up.call("POST", "/chat", {"message": "Hi", "model": "fast"}, account.key)
    assert len(whole.body["message"]) == 600_000
    listed = await up.call("GET", f"/chats/{whole.body['chat_id']}/messages", token=account.key)
    assert len(listed.body["messages"]) == 2


async def test_a_key_or_a_model_that_is_too_long_is_the_callers_mistake(up: Up, account: Account):
    key = await up.call("GET", "/chats", **{"X-API-Key": "ai_" + "x" * 500})
    check_envelope(key, 401, "INVALID_CREDENTIALS")
    for token in (account.key, account.token):
        body = {"message": "Hi", "model": "m" * 300}
        check_envelope(await up.call("POST", "/chat", body, token), 400, "INVALID_FIELDS")


@pytest.mark.parametrize("path", ["/chats?page_token=%FF", "/chats/%FF", "/v1/models/%FF"])
async def test_text_that_is_no_utf8_is_the_callers_mistake(up: Up, path: str):
    check_envelope(await up.call("GET", path), 400, "MALFORMED_REQUEST")


async def test_answers_to_head_have_no_body(up: Up):
    reader, writer = await asyncio.open_connection("127.0.0.1", up.gateway)
    for _ in range(2):  # A body left over would be read as the second answer.
        writer.write(b"HEAD /auth/me HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 405 ")
    writer.close()


async def test_a_credential_that_is_no_utf8_is_not_logged(up: Up, account: Account):
    reader, writer = await asyncio.open_connection("127.0.0.1", up.gateway)
    key = account.key.encode() + b"\xa0"
    writer.write(b"GET /chats HTTP/1.1\r\nHost: x\r\nX-API-Key: " + key + b"\r\n\r\n")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert head.startswith(b"HTTP/1.1 ")
    logs = "".join(path.read_text() for path in Path(Home(up.home).logs).glob("*.log"))
    assert account.key not in logs
