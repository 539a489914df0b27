"""Secrets that go through every surface, failing ones too, and are found nowhere."""

import asyncio
import base64
import json
import secrets
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import grpc
import psycopg
import pytest

from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from mesh.local import postgres
from mesh.local.home import Home
from tests.fake_openai import ECHO, End, FakeOpenAI, Script, models_file
from tests.harness import bearer
from tests.mesh.canaries import found, places
from tests.mesh.running import JSON, Answer, Up, started
from tests.support import eventually

EMAIL = "canary@example.com"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def canary(prefix: str = "") -> str:
    """A secret that is nowhere else, with characters that each encoding changes."""
    return f"{prefix}Canary+{secrets.token_hex(12)}/~"


def provider_key(prefix: str = "sk-") -> str:
    """As `canary`, of the characters that keys of providers have."""
    return f"{prefix}Canary{secrets.token_hex(16)}"


@dataclass
class Flock:
    """A mesh, its secrets by name, and all that it answered and should hold none of them."""

    up: Up
    provider: FakeOpenAI
    secrets: dict[str, str]
    answers: list[Answer] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.secrets[name]

    async def call(
        self, verb: str, path: str, body: object = None, token: str = "", **headers: str
    ) -> Answer:
        """As `Up.call`; the answer is to hold no secret."""
        answer = await self.up.call(verb, path, body, token, **headers)
        self.answers.append(answer)
        return answer

    async def shown(self, what: str, path: str, body: JSON, token: str = "") -> JSON:
        """The body of an answer that shows new secrets, which are kept under names of their own."""
        answer = (await self.up.call("POST", path, body, token)).body
        for name in {"access_token", "refresh_token", "key"} & set(answer):
            self.secrets[f"{name} {what}"] = answer[name]
        return answer


@pytest.fixture(scope="module")
async def flock(provider_server: FakeOpenAI) -> AsyncIterator[Flock]:
    kept = {
        **{"SECRET_KEY": canary(), "OPENAI_API_KEY": provider_key()},
        **{"GROQ_API_KEY": provider_key("gsk_"), "HF_TOKEN": provider_key("hf_")},
    }
    # A short name: the admin's socket is to be in the home.
    with tempfile.TemporaryDirectory() as folder:
        async with started(
            Path(folder) / "home",
            MODELS_FILE=models_file(Path(folder)),
            OPENAI_BASE_URL=provider_server.url,
            GROQ_BASE_URL=provider_server.url,
            HF_BASE_URL=provider_server.url,
            PROVIDER_FIRST_BYTE_TIMEOUT="1",
            RATE_LIMIT_PER_MINUTE="1000",
            DEBUG="true",
            **kept,
        ) as up:
            flock = Flock(up, provider_server, dict(kept))
            admin = await up.administrator()
            flock.secrets["password of the administrator"] = str(urlsplit(admin).password)
            for name in ("auth", "chat", "keys", "usage"):
                own = postgres.service_dsn(admin, name, kept["SECRET_KEY"])
                flock.secrets[f"password of {name}"] = str(urlsplit(own).password)
            await accounts(flock)
            await keys(flock)
            await own_keys(flock)
            await failing_providers(flock)
            await streams(flock)
            await tasks_and_repeats(flock)
            await native_grpc(flock)
            await flock.call("GET", "/the-last-call")
            # Envoy writes its log every 10 seconds.
            log = Home(up.home).logs / "access.log"
            await eventually(lambda: "/the-last-call" in log.read_text(), within=30)
            yield flock


async def accounts(flock: Flock) -> None:
    """Registering, logging in, refreshing and changing passwords, well and badly."""
    flock.secrets |= {name: canary() for name in ("password", "wrong password", "new password")}
    register = {"email": EMAIL, "password": flock["password"]}
    assert (await flock.call("POST", "/auth/register", register)).status == 200
    await flock.call("POST", "/auth/register", register)
    await flock.call("POST", "/auth/register", register | {"email": flock["password"]})
    await flock.shown("of login", "/auth/login", register)
    tokens = await flock.shown("refreshed", "/auth/login", register)
    wrong = {"email": EMAIL, "password": flock["wrong password"]}
    for body in (wrong, {**wrong, "password": [flock["password"]]}, {"email": flock["password"]}):
        assert (await flock.call("POST", "/auth/login", body)).status in (400, 401)
    for path in ("/auth/login", "/auth/register", "/auth/refresh", "/auth/password"):
        broken = json.dumps({**register, "refresh_token": tokens["refresh_token"]})[:-1].encode()
        assert (await flock.call("POST", path, broken)).status in (400, 401)
        await flock.call("POST", f"{path}?password={quote(flock['password'], safe='')}", {})
    form = {"username": EMAIL, "password": flock["wrong password"]}
    for more in ({}, {"grant_type": flock["password"]}, {"refresh_token": tokens["access_token"]}):
        data = urlencode(form | more).encode()
        assert (await flock.call("POST", "/auth/token", data, **FORM)).status in (400, 401)
    old = {"refresh_token": tokens["refresh_token"]}
    for what in ("of refresh", "of the next refresh"):
        last = await flock.shown(what, "/auth/refresh", {"refresh_token": tokens["refresh_token"]})
        tokens = {"refresh_token": last["refresh_token"]}
    assert (await flock.call("POST", "/auth/refresh", old)).status == 401
    token = flock["access_token of login"]
    for current, new in (
        ("wrong password", "new password"),
        ("password", "password"),
        ("password", "new password"),
    ):
        change = {"current_password": flock[current], "new_password": flock[new]}
        await flock.call("POST", "/auth/password", change, token)
    changed = {"email": EMAIL, "password": flock["new password"]}
    assert "access_token" in await flock.shown("of the new password", "/auth/login", changed)


async def keys(flock: Flock) -> None:
    """Own keys: made, rotated, used in each header, and spoilt."""
    token = flock["access_token of the new password"]
    made = await flock.shown("first", "/api/v1/api-keys", {"name": "canary"}, token)
    await flock.shown("rotated", f"/api/v1/api-keys/{made['id']}:rotate", {}, token)
    await flock.shown("in use", "/api/v1/api-keys", {"name": "in use"}, token)
    await flock.shown("revoked", "/api/v1/api-keys", {"name": "revoked"}, token)
    key = flock["key in use"]
    for headers in (
        {"X-API-Key": key},
        {"X-API-Key": f"{key}x"},
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"Authorization": f"Bearer {token}x"},
        {"X-API-Key": key, "Authorization": f"Bearer {token}"},
        {"Cookie": f"session={token}"},
        {"Idempotency-Key": key},
    ):
        await flock.call("GET", "/chats", **headers)
    for path in ("/api/v1/api-keys", "/v1/models", "/v1/usage", f"/chats?page_token={quote(key)}"):
        await flock.call("GET", path, token=token)
        await flock.call("GET", path, token=key)
    await flock.call("GET", f"/chats?api_key={key}", token=key)
    listed = (await flock.up.call("GET", "/api/v1/api-keys", token=token)).body["api_keys"]
    (revoked,) = [each["id"] for each in listed if each["name"] == "revoked"]
    await flock.call("DELETE", f"/api/v1/api-keys/{revoked}", token=token)
    await flock.call("GET", "/chats", token=flock["key revoked"])


async def own_keys(flock: Flock) -> None:
    """Keys of providers that callers send or store, well and badly."""
    names = ("sent", "in a header", "stored", "anonymous", "too long")
    flock.secrets |= {f"own key {name}": provider_key() for name in names}
    flock.secrets["own key of another"] = provider_key("gsk_")
    flock.secrets["own key too long"] += "x" * 600
    token, key = flock["access_token of the new password"], flock["key in use"]
    chat, sent = {"message": "Hi", "model": "fast"}, flock["own key sent"]
    other = flock["own key of another"]
    for body in (
        {**chat, "api_key": sent},
        {**chat, "api_key": other},
        {**chat, "api_key": [sent]},
        {**chat, "api_key": f"{sent}\n"},
        {**chat, "api_key": flock["own key too long"]},
        {**chat, "api_key": sent, "temperature": 9},
        {**chat, "api_key": sent, "model": "echo"},
        json.dumps({**chat, "api_key": sent})[:-1].encode(),
        json.dumps({**chat, "api_key": sent, "more": "x" * 300_000}).encode(),
    ):
        for path in ("/chat", "/chat/stream"):
            await flock.call("POST", path, body, key)
    bare = {"user_message": "Hi", "model": "fast"}
    for own in (flock["own key anonymous"], other, [other]):
        await flock.call("POST", "/api/chat", {**bare, "api_key": own})
    completion = {"model": "fast", "messages": [{"role": "user", "content": "Hi"}]}
    for own in (flock["own key in a header"], other):
        headers = {"X-Provider-Key": own}
        await flock.call("POST", "/v1/chat/completions", completion, key, **headers)
        await flock.call("POST", "/v1/chat/completions", {**completion, "n": 0}, key, **headers)
        await flock.call("POST", "/v1/chat/completions", b'{"model"', key, **headers)
    place, stored = "/v1/provider-credentials", flock["own key stored"]
    for body in (
        {"provider": "openai", "api_key": other},
        {"provider": stored, "api_key": stored},
        {"provider": "openai", "api_key": {"x": stored}},
        {"provider": "openai", "api_key": stored},
    ):
        await flock.call("POST", place, body, token)
    await flock.call("GET", place, token=token)

    async def used() -> bool:
        assert (await flock.call("POST", "/chat", chat, key)).status == 200
        return flock.provider.requests[-1].headers["Authorization"] == f"Bearer {stored}"

    await eventually(used)


async def failing_providers(flock: Flock) -> None:
    """Providers that refuse, fail, are silent, and echo the key that they were given."""
    key = flock["key in use"]
    echoed = json.dumps({"error": {"message": f"this key: {ECHO}", "code": "invalid_api_key"}})
    calls: list[tuple[str, JSON]] = [
        ("/chat", {"message": "Hi", "model": "fast", "api_key": flock["own key sent"]}),
        ("/chat", {"message": "Hi", "model": "fast"}),  # By the stored key.
        ("/chat", {"message": "Hi", "model": "llama-3.3-70b-versatile"}),  # By the operator's.
        ("/chat/stream", {"message": "Hi", "model": "meta-llama/Llama-3.3-70B-Instruct"}),
        ("/v1/chat/completions", {"model": "fast", "messages": [{"role": "user", "content": "x"}]}),
        ("/api/chat", {"user_message": "Hi", "api_key": flock["own key anonymous"]}),
    ]
    for script in (
        *(Script(status=status, body=echoed) for status in (400, 401, 403, 404, 429, 500)),
        Script(status=302, headers={"Location": f"http://127.0.0.1:1/?key={ECHO}"}),
        Script(raw=f"data: {echoed}\n\n".encode()),
        Script(raw=f"{echoed}\n\n".encode(), end=End.MALFORMED),
        Script(end=End.CUT),
        Script(reset=True),
    ):
        flock.provider.script = script
        await asyncio.gather(*(flock.call("POST", path, body, key) for path, body in calls))
    flock.provider.script = Script(headers_after=3)
    answers = await asyncio.gather(*(flock.call("POST", path, body, key) for path, body in calls))
    assert [answer.status for answer in answers].count(504) >= 4
    flock.provider.script = Script()


async def streams(flock: Flock) -> None:
    """Streams that their readers leave, that are cancelled, and that run on."""
    up, key, token = flock.up, flock["key in use"], flock["access_token of the new password"]
    flock.provider.script = Script(pieces=("a",) * 500, pause=0.05)
    body = {"message": "Hi", "model": "fast", "api_key": flock["own key sent"]}
    for on_disconnect in ("cancel", "finish"):
        async with up.http.post(
            f"{up.url}/chat/stream",
            json=body | {"on_disconnect": on_disconnect},
            headers={"X-API-Key": key},
        ) as answer:
            await answer.content.readline()
            generation = answer.headers["X-Generation-Id"]
    cancelled = await flock.call("POST", f"/v1/generations/{generation}:cancel", {}, token)
    assert cancelled.body["status"] == "cancelled"
    flock.provider.script = Script()
    await flock.call("GET", f"/v1/generations/{generation}/events", token=token)
    await flock.call("GET", f"/v1/generations/{generation}", token=token)
    await flock.call("GET", "/v1/generations", token=token)


async def tasks_and_repeats(flock: Flock) -> None:
    """Background tasks, which take no key, and requests that are repeated with other keys."""
    key, token = flock["key in use"], flock["access_token of the new password"]
    body: dict[str, object] = {"message": "Hi", "model": "fast"}
    with_key = body | {"api_key": flock["own key sent"]}
    refused = await flock.call("POST", "/chat/background", with_key, key)
    assert refused.status == 400
    task = (await flock.call("POST", "/chat/background", body, key)).body["task_id"]

    async def ended() -> bool:
        answer = await flock.call("GET", f"/chat/tasks/{task}", token=token)
        return answer.body["status"] in ("completed", "failed")

    await eventually(ended, within=30)
    flock.secrets["request id"] = canary()
    for own in ("own key sent", "own key stored", "own key sent"):
        named = {**body, "api_key": flock[own], "request_id": "again"}
        await flock.call("POST", "/chat", named, key)
        await flock.call("POST", "/chat", body, key, **{"Idempotency-Key": "twice"})


async def native_grpc(flock: Flock) -> None:
    """The same over gRPC, whose refusals are kept as answers."""
    flock.provider.script = Script(status=401, body=ECHO)
    request = chat_pb.CreateReplyRequest(message="Hi", model="fast", api_key=flock["own key sent"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{flock.up.grpc}") as channel:
        stub = chat_grpc.ChatServiceStub(channel)
        for credential in (flock["key in use"], f"{flock['key in use']}x"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CreateReply(request, timeout=10, metadata=bearer(credential))
            flock.answers.append(Answer(0, {}, repr(refused.value)))
    flock.provider.script = Script()


async def test_no_secret_is_in_any_answer_that_does_not_show_it(flock: Flock):
    texts = {
        f"answer {number}: {answer}"[:300]: f"{answer.headers}\n{answer.text}".encode()
        for number, answer in enumerate(flock.answers)
    }
    assert len(texts) > 150
    assert found(flock.secrets, texts) == set()


async def test_no_secret_is_in_logs_arguments_statistics_or_the_database(flock: Flock):
    everywhere = await places(flock.up)
    assert b"/auth/token" in everywhere["logs/access.log"]
    assert EMAIL.encode() in everywhere["database"]
    assert b"cluster.chat" in everywhere["admin /stats"]
    assert len(everywhere["bytes in the database"]) > 1000
    assert found(flock.secrets, everywhere) == set()


async def test_no_secret_is_in_a_file_of_the_database(flock: Flock):
    with psycopg.connect(await flock.up.administrator(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    files = [path for path in Home(flock.up.home).postgres.rglob("*") if path.is_file()]
    assert len(files) > 100
    for file in files:
        assert found(flock.secrets, {str(file): file.read_bytes()}) == set()


async def test_a_planted_secret_is_found_where_it_is(flock: Flock):
    secret = flock["password"]
    (Home(flock.up.home).logs / "planted.log").write_text(f"login of canary: {secret}\n")
    with psycopg.connect(await flock.up.administrator(), autocommit=True) as connection:
        connection.execute("CREATE TABLE planted (in_text text, in_bytes bytea)")
        connection.execute(
            "INSERT INTO planted VALUES (%s, %s)", [quote(flock["HF_TOKEN"]), secret.encode()]
        )
    try:
        everywhere = await places(flock.up)
    finally:
        (Home(flock.up.home).logs / "planted.log").unlink()
        with psycopg.connect(await flock.up.administrator(), autocommit=True) as connection:
            connection.execute("DROP TABLE planted")
    assert found(flock.secrets, everywhere) == {
        ("password", "logs/planted.log"),
        ("password", "database"),
        ("password", "bytes in the database"),
        ("HF_TOKEN", "database"),
    }


@pytest.mark.parametrize("before", ["", "a", "ab"])
def test_each_form_of_a_secret_is_known(before: str):
    secret = canary()
    text = f"{before}{secret}behind"
    for written in (
        text,
        text.encode().hex(),
        quote(text, safe=""),
        base64.b64encode(text.encode()).decode(),
        base64.urlsafe_b64encode(text.encode()).decode(),
    ):
        assert found({"it": secret}, {"here": f"<{written}>".encode()}) == {("it", "here")}
    assert found({"it": secret}, {"here": canary().encode()}) == set()
