"""The tour of the README: what a newcomer does first, over REST."""

import csv
import io
import json
import time
import uuid

import pytest

from tests.fake_openai import FakeOpenAI, Script
from tests.mesh.running import Account, Up
from tests.support import eventually


async def test_an_account_is_registered_and_logs_in(up: Up):
    name, email = f"user-{uuid.uuid4().hex[:8]}", f"{uuid.uuid4().hex}@example.com"
    asked = {"username": name, "email": email, "password": "password123"}
    made = await up.call("POST", "/auth/register", asked)
    assert made.status == 200
    assert set(made.body) == {"id", "username", "email", "role", "created_at"}
    assert (made.body["username"], made.body["email"]) == (name, email)
    login = await up.call("POST", "/auth/login", {"username": name, "password": "password123"})
    assert set(login.body) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert login.body["token_type"] == "bearer"
    me = await up.call("GET", "/auth/me", token=login.body["access_token"])
    assert me.body == made.body


async def test_a_form_gives_tokens_as_oauth2_has_it(up: Up, account: Account):
    form = f"username={account.email}&password=password123".encode()
    answer = await up.call(
        "POST", "/auth/token", form, **{"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert (answer.status, answer.body["token_type"]) == (200, "bearer")


async def test_a_key_is_made_shown_once_and_revoked(up: Up, account: Account):
    asked = {"name": "My App Key", "rate_limit_per_minute": 20}
    made = await up.call("POST", "/api/v1/api-keys", asked, account.token)
    assert made.body["key"].startswith("ai_")
    assert made.body["key_prefix"] == made.body["key"][:8]
    assert made.body["last_used_at"] is None
    assert (made.body["is_active"], made.body["rate_limit_per_minute"]) == (True, 20)
    path = f"/api/v1/api-keys/{made.body['id']}"
    shown = await up.call("GET", path, token=account.token)
    assert made.body["key"] not in shown.text
    key = made.body["key"]
    assert (await up.call("GET", "/chats", token=key)).status == 200
    assert (await up.call("DELETE", path, token=account.token)).status == 200

    async def refused() -> bool:
        answer = await up.call("GET", "/chats", token=key)
        return answer.status == 401 and answer.reason == "INVALID_CREDENTIALS"

    await eventually(refused, within=2)


async def test_a_stream_arrives_as_it_is_made(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("Code", " flows", " like", " water"), pause=0.15)
    body = {"messages": [{"role": "user", "content": "Write a poem"}], "model": "gpt-3.5-turbo"}
    events, times = [], []
    async with up.http.post(
        f"{up.url}/api/v1/chat/stream", json=body, headers={"X-API-Key": account.key}
    ) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert "RateLimit" in answer.headers
        generation_id = answer.headers["X-Generation-Id"]
        async for line in answer.content:
            if line.startswith(b"data: "):
                events.append(json.loads(line[6:]))
                times.append(time.monotonic())
    assert events[:4] == [
        {"generation_id": generation_id, "seq": seq, "token": token}
        for seq, token in enumerate(("Code", " flows", " like", " water"), 1)
    ]
    assert events[4:] == [
        {
            "generation_id": generation_id,
            "seq": 5,
            "done": True,
            "full_text": "Code flows like water",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 25, "completion_tokens": 150, "total_tokens": 175},
            "model": "gpt-4o-mini-2024-07-18",
        }
    ]
    assert times[3] - times[0] > 0.3


async def test_a_chat_has_a_history(up: Up, account: Account, provider: FakeOpenAI):
    said, chat_id = ["My name is Ada.", "What is my name?", "Say it again."], None
    for message in said:
        body = {"message": message, "model": "fast"} | ({"chat_id": chat_id} if chat_id else {})
        reply = await up.call("POST", "/chat", body, account.key)
        chat_id = reply.body["chat_id"]
    assert reply.body["message"] == "Hello, world!"
    assert set(reply.body) >= {"id", "chat_id", "message", "model", "usage", "finish_reason"}
    sent = [turn["content"] for turn in provider.requests[-1].body["messages"]]
    assert sent == [said[0], "Hello, world!", said[1], "Hello, world!", said[2]]
    for path in ("/chats", "/conversations"):
        (chat,) = (await up.call("GET", path, token=account.token)).body["chats"]
        assert (chat["id"], chat["title"]) == (chat_id, "My name is Ada.")
    listed = await up.call("GET", f"/chats/{chat_id}/messages?page_size=4", token=account.token)
    assert [m["role"] for m in listed.body["messages"]] == ["user", "assistant"] * 2
    token = listed.body["next_page_token"]
    rest = await up.call(
        "GET", f"/chats/{chat_id}/messages?page_token={token}", token=account.token
    )
    assert [m["content"] for m in rest.body["messages"]] == [said[2], "Hello, world!"]
    renamed = await up.call("PATCH", f"/chats/{chat_id}", {"title": "Names"}, account.token)
    assert renamed.body["title"] == "Names"
    assert (await up.call("DELETE", f"/chats/{chat_id}", token=account.token)).status == 200
    assert (await up.call("GET", f"/chats/{chat_id}", token=account.token)).status == 404


async def test_usage_counts_what_was_used(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(tokens=(1000, 500))
    for _ in range(2):
        await up.call("POST", "/chat", {"message": "Hi", "model": "gpt-4o-mini"}, account.key)
    path = f"/api/v1/usage/{account.key_id}"

    async def counted() -> dict[str, object] | None:
        got = await up.call("GET", f"{path}/summary?days=30", token=account.token)
        return got.body if got.body["total_requests"] == 2 else None

    summary = await eventually(counted)
    assert (summary["total_prompt_tokens"], summary["total_completion_tokens"]) == (2000, 1000)
    assert summary["total_tokens"] == 3000
    assert summary["total_cost_usd"] == 0.0009
    records = (await up.call("GET", path, token=account.key)).body["records"]
    assert [record["model"] for record in records] == ["gpt-4o-mini"] * 2
    assert (await up.call("GET", "/v1/usage/summary", token=account.token)).body[
        "total_requests"
    ] == 2


async def test_items_are_created_read_replaced_and_deleted(up: Up, account: Account):
    sample = {"name": "Sample Item", "description": "This is a sample item", "price": 29.99}
    made = await up.call("POST", "/items", {**sample, "is_available": True}, account.key)
    assert made.body == {"id": made.body["id"], **sample, "is_available": True}
    path = f"/items/{made.body['id']}"
    assert (await up.call("GET", path, token=account.token)).body == made.body
    put = await up.call("PUT", path, {"name": "Other", "price": 1}, account.key)
    assert put.body == {"id": made.body["id"], "name": "Other", "price": 1, "is_available": True}
    listed = await up.call("GET", "/items", token=account.key)
    assert listed.body == {"items": [put.body], "next_page_token": ""}
    assert (await up.call("DELETE", path, token=account.key)).body == {}
    assert (await up.call("GET", path, token=account.key)).reason == "ITEM_NOT_FOUND"


async def test_models_are_listed_as_openai_does(up: Up, account: Account):
    listed = (await up.call("GET", "/v1/models", token=account.key)).body
    assert listed["object"] == "list"
    assert {"echo", "gpt-3.5-turbo", "gpt-4o-mini"} <= {model["id"] for model in listed["data"]}
    assert (await up.call("GET", "/v1/models/fast", token=account.key)).body["id"] == "gpt-4o-mini"
    by_id = {model["id"]: model for model in listed["data"]}
    assert by_id["fast"]["root"] == by_id["gpt-4o-mini"]["root"] == "gpt-4o-mini"
    assert by_id["gpt-4o-mini"]["aliases"] == ["fast"]


async def test_a_key_that_is_held_to_models_sees_those_alone(
    up: Up, account: Account, provider: FakeOpenAI
):
    for allowed, seen in ((["fast"], {"gpt-4o-mini", "fast"}), (["echo"], {"echo"})):
        held = {"name": "held", "allowed_models": allowed}
        key = (await up.call("POST", "/api/v1/api-keys", held, account.token)).body["key"]
        listed = (await up.call("GET", "/v1/models", token=key)).body["data"]
        assert {model["id"] for model in listed} == seen
        hidden = await up.call("GET", "/v1/models/gpt-4o", token=key)
        assert (hidden.status, hidden.reason) == (404, "MODEL_NOT_FOUND")
        for model in seen:
            assert (await up.call("GET", f"/v1/models/{model}", token=key)).status == 200
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            answer = await up.call("POST", "/v1/chat/completions", body, key)
            assert answer.status == 200


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/v1/chat/completions"])
async def test_the_name_that_was_asked_for_stands_beside_the_providers(
    up: Up, account: Account, path: str
):
    body: dict[str, object] = {"model": "echo", "message": "Hi"}
    if path.startswith("/v1"):
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
    answer = await up.call("POST", path, body, account.key)
    assert answer.headers["X-Khesht-Model"] == "echo"
    unknown = await up.call("POST", path, body | {"model": "no-such"}, account.key)
    assert (unknown.status, unknown.headers["X-Khesht-Model"]) == (404, "no-such")
    odd = await up.call("POST", path, body | {"model": "é\r\nX-Evil: 1"}, account.key)
    assert "X-Khesht-Model" not in odd.headers
    assert "X-Evil" not in odd.headers


async def test_limits_are_told_and_held(up: Up, account: Account):
    asked = {"name": "small", "rate_limit_per_minute": 3}
    key = (await up.call("POST", "/api/v1/api-keys", asked, account.token)).body["key"]
    body = {"message": "hi", "model": "echo", "store": False}
    answers = [await up.call("POST", "/chat", body, key) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == [
        "r=2",
        "r=1",
        "r=0",
        "r=0",
    ]
    assert answers[3].reason == "RATE_LIMITED"
    assert 0 < int(answers[3].headers["Retry-After"]) <= 20


async def test_usage_is_grouped_and_exported(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(tokens=(1000, 500))
    for model, token in (("gpt-4o-mini", account.key), ("gpt-4o", account.token)):
        await up.call("POST", "/chat", {"message": "Hi", "model": model}, token)

    async def grouped() -> list[dict[str, object]]:
        got = await up.call("GET", "/v1/usage/summary?group_by=model", token=account.token)
        groups: list[dict[str, object]] = got.body["groups"]
        return groups if len(groups) == 2 else []

    groups = await eventually(grouped)
    assert [(g["name"], g["total_tokens"]) for g in groups] == [
        ("gpt-4o", 1500),
        ("gpt-4o-mini", 1500),
    ]
    assert groups[0]["total_cost_usd"] == 0.0075
    by_key = await up.call("GET", "/v1/usage/summary?group_by=key", token=account.token)
    assert [group["name"] for group in by_key.body["groups"]] == ["", account.key_id]
    by_day = await up.call("GET", "/v1/usage/summary?group_by=day", token=account.token)
    (day,) = by_day.body["groups"]
    assert (len(day["name"]), day["total_requests"]) == (10, 2)
    exported = await up.call("GET", "/v1/usage/export?format=csv", token=account.token)
    assert exported.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(exported.text)))
    assert [(row["model"], row["cost_usd"]) for row in rows] == [
        ("gpt-4o", "0.007500000"),
        ("gpt-4o-mini", "0.000450000"),
    ]
    wrong = await up.call("GET", "/v1/usage/export?format=xml", token=account.token)
    assert wrong.status == 400
