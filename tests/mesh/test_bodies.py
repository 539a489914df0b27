"""What is read of a body, a query and their headers: nothing that is not known is passed over."""

import json

import pytest

from tests.fake_openai import FakeOpenAI
from tests.mesh.running import Account, Answer, Up

ITEM = {"name": "Lamp", "price": 1}


def wrong_fields(answer: Answer) -> list[str]:
    """The fields that a refusal blames."""
    assert answer.status == 400, answer.text
    details = answer.body["error"]["details"]
    return [one["field"] for each in details for one in each.get("field_violations", [])]


@pytest.mark.parametrize(
    ("verb", "path", "body", "fields"),
    [
        ("POST", "/items", ITEM | {"prise": 2}, ["prise"]),
        ("POST", "/items", ITEM | {"a": {"b": [{"c": 1}]}, "d": 1}, ["a", "d"]),
        ("POST", "/items", ITEM | {"not a name": 1}, ["?"]),
        ("POST", "/chat", {"message": "Hi", "model": "echo", "Message": "Hi"}, ["Message"]),
        (
            *("POST", "/chat/conversation"),
            {"model": "echo", "messages": [{"role": "user", "content": "Hi", "nme": "x"}]},
            ["messages.nme"],
        ),
        ("POST", "/auth/register", {"e-mail": "x", "password": "password123"}, ["?"]),
        ("POST", "/auth/login", {"user": "x", "password": "password123"}, ["user"]),
        ("POST", "/api/v1/api-keys", {"name": "x", "monthly_budget": 1}, ["monthly_budget"]),
        ("POST", "/v1/provider-credentials", {"provider": "openai", "key": "x"}, ["key"]),
    ],
)
async def test_a_field_that_there_is_not_is_refused_with_its_name(
    up: Up, account: Account, verb, path, body, fields
):
    answer = await up.call(verb, path, body, account.token)
    assert wrong_fields(answer) == fields
    assert answer.reason == "INVALID_FIELDS"


async def test_a_mistyped_budget_leaves_the_budget_as_it_is(up: Up, account: Account, admin: str):
    path = f"/v1/users/{account.id}/budget"
    assert (await up.call("PUT", path, {"monthly_budget_usd": 5}, admin)).status == 200
    answer = await up.call("PUT", path, {"monthly_budget": 6}, admin)
    assert wrong_fields(answer) == ["monthly_budget"]
    for nothing in (None, b"", b" \n"):
        answer = await up.call("PUT", path, nothing, admin)
        assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")
    assert (await up.call("GET", path, token=admin)).body["monthly_budget_usd"] == 5
    assert (await up.call("PUT", path, {}, admin)).status == 200
    assert "monthly_budget_usd" not in (await up.call("GET", path, token=admin)).body


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "a\\"b,{}[]: \\\\", "price": 1, "description": "{\\"prise\\": 1}"}',
        b'{"n\\u0061me": "x", "price": 1, "isAvailable": true}',
        b' { "name" : "x" , "price" : 1 , "description" : null } ',
    ],
    ids=["marks in strings", "escaped, in camel case", "spaces"],
)
async def test_whatever_its_spelling_a_known_field_is_known(up: Up, account: Account, body: bytes):
    assert (await up.call("POST", "/items", body, account.key)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{'message': 'hi', 'model': 'echo', 'max_tokns': 1}",
        b'{"message": "hi", "model": "echo", \'foo\': 1}',
        b'{message: "hi", model: "echo"}',
        b'{"message": "hi", model: "echo", x: 1}',
    ],
)
async def test_what_is_quoted_otherwise_than_json_is_no_json(up: Up, account: Account, body: bytes):
    answer = await up.call("POST", "/chat", body, account.key)
    assert (answer.status, answer.reason) == (400, "MALFORMED_REQUEST")


async def test_a_parameter_of_its_type_hides_no_names(up: Up, account: Account):
    kind = {"Content-Type": "application/json; a=application/grpc"}
    body = b'{"message": "it\'s", "model": "echo", "foo": 1}'
    answer = await up.call("POST", "/chat", body, account.key, **kind)
    assert (answer.status, answer.reason) == (400, "INVALID_FIELDS")


async def test_a_body_of_very_many_names_is_refused_soon(up: Up, account: Account):
    body = json.dumps(ITEM | {f"n{n}": n for n in range(15_000)}).encode()
    fields = wrong_fields(await up.call("POST", "/items", body, account.key))
    assert fields[0] == "n0"
    assert len(fields) == 10


async def test_openais_format_takes_fields_and_parameters_that_nobody_here_knows(
    up: Up, account: Account, provider: FakeOpenAI
):
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi", "x": 1}], "y": {"z": 2}}
    path = "/v1/chat/completions?api-version=2024-10-21&x="
    assert (await up.call("POST", path, body, account.key)).status == 200
    assert provider.requests[0].body == body | {"model": "gpt-4o-mini"}
    assert (await up.call("GET", "/v1/models?limit=5&after=", token=account.key)).status == 200


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("/v1/usage?key_id=", "key_id"),
        ("/v1/usage?key_id", "key_id"),
        ("/v1/usage?key%5Fid=", "key_id"),
        ("/v1/usage?keyId=", "keyId"),
        ("/v1/usage?page_size=5&key_id=", "key_id"),
        ("/v1/usage/summary?key_id=", "key_id"),
        ("/v1/usage/summary?group_by=", "group_by"),
        ("/v1/usage/summary?days=", "days"),
        ("/v1/usage/export?key_id=", "key_id"),
        ("/v1/generations?status=", "status"),
        ("/v1/generations?chat_id=", "chat_id"),
        ("/v1/generations?key_id=", "key_id"),
        ("/chats?page_size=", "page_size"),
    ],
)
async def test_an_empty_filter_is_no_filter_left_out(up: Up, account: Account, query, field):
    assert wrong_fields(await up.call("GET", query, token=account.token)) == [field]


async def test_the_token_of_a_last_page_may_come_back(up: Up, account: Account):
    assert (await up.call("GET", "/chats?page_token=", token=account.token)).status == 200


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat", '{"message": "Hi \\ud83d", "model": "echo"}', "message"),
        ("/chat", '{"message": "\\ude00\\ud83d", "model": "echo"}', "message"),
        (
            "/chat/conversation",
            '{"messages": [{"role": "user", "content": "\\ud83d\\ude00"},'
            ' {"role": "user", "content": "\\ud83d"}]}',
            "messages[1].content",
        ),
        ("/items", '{"name": "\\ud83d", "price": 1}', "name"),
        (
            "/v1/chat/completions",
            '{"model": "fast", "messages": [{"role": "user", "content": "\\ud83d"}]}',
            "messages[0].content",
        ),
        (
            "/v1/chat/completions",
            '{"messages": [{"role": "user", "content": "x"}], "model": "fast", "user": "\\ud83d"}',
            "user",
        ),
    ],
)
async def test_half_of_an_emoji_is_named(up: Up, account: Account, path, body, field):
    answer = await up.call("POST", path, body.encode(), account.key)
    assert wrong_fields(answer) == [field]
    assert "surrogate" in answer.body["error"]["message"]


async def test_a_whole_emoji_arrives(up: Up, account: Account):
    for path in ("/chat", "/v1/chat/completions"):
        turns = b'"messages": [{"role": "user", "content": "\\ud83d\\ude00 \\\\ud83d"}]'
        answer = await up.call("POST", path, b'{"model": "echo", ' + turns + b"}", account.key)
        assert "\U0001f600 \\\\ud83d" in answer.text


@pytest.mark.parametrize("path", ["/items", "/chat", "/auth/token", "/v1/chat/completions"])
@pytest.mark.parametrize("coding", ["gzip", "br", "x-nonsense", "gzip, identity"])
async def test_a_coding_that_is_not_taken_is_415(up: Up, account: Account, path, coding):
    answer = await up.call("POST", path, b"{}", account.key, **{"Content-Encoding": coding})
    assert (answer.status, answer.reason) == (415, "UNSUPPORTED")
    assert answer.headers["Accept-Encoding"] == "identity"


async def test_what_is_not_encoded_may_say_so(up: Up, account: Account):
    answer = await up.call("POST", "/items", ITEM, account.key, **{"Content-Encoding": "identity"})
    assert answer.status == 200


@pytest.mark.parametrize("unset", ["include_usage", "stream_options", "stream", "n"])
async def test_null_is_unset(up: Up, account: Account, provider: FakeOpenAI, unset: str):
    body = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    if unset == "include_usage":
        body["stream_options"] = {"include_usage": None}
    else:
        body[unset] = None
    answer = await up.call("POST", "/v1/chat/completions", body, account.key)
    assert answer.status == 200, answer.text
    assert ('"usage"' in answer.text) == (unset == "stream")
