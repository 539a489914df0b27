"""Headers that clients and proxies add."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from tests.mesh.running import Account, Up, started
from tests.support import eventually


async def logged(up: Up, log: str, **wanted: str) -> dict[str, Any]:
    """The line of a log that has these values, once it is there."""

    def line() -> dict[str, Any] | None:
        for each in (up.home / "logs" / log).read_text().splitlines():
            if each.startswith("{") and wanted.items() <= (told := json.loads(each)).items():
                return dict(told)
        return None

    return await eventually(line, within=10)


@pytest.mark.parametrize("name", ["X-API-Key", "api-key", "Api-Key"])
async def test_a_key_may_come_as_azures_clients_send_it(up: Up, account: Account, name: str):
    assert (await up.call("GET", "/chats", **{name: account.key})).status == 200
    refused = await up.call("GET", "/chats", **{name: "ai_nonsense"})
    assert (refused.status, refused.reason) == (401, "INVALID_CREDENTIALS")


async def test_a_key_of_azures_clients_is_one_on_native_grpc_too(up: Up, account: Account):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        list_chats = ChatServiceStub(channel).ListChats
        told = await list_chats(
            pb.ListChatsRequest(), metadata=(("api-key", account.key),), timeout=10
        )
        assert not told.chats
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await list_chats(pb.ListChatsRequest(), metadata=(("api-key", "ai_no"),), timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_id_of_the_clients_own_comes_back_and_is_logged(up: Up, account: Account):
    own = f"client-{account.id}/1:x"
    answer = await up.call("GET", "/chats", token=account.key, **{"X-Client-Request-Id": own})
    assert answer.headers["X-Client-Request-Id"] == own
    line = await logged(up, "access.log", client_request_id=own)
    assert line["request_id"] == answer.headers["X-Request-Id"]
    refused = await up.call("GET", "/nothing", **{"X-Client-Request-Id": own})
    assert refused.headers["X-Client-Request-Id"] == own
    logs = (up.home / "logs" / "chat.log").read_text()
    assert own in logs


@pytest.mark.parametrize("own", ["x" * 513, "two words", "é", "\t"])
async def test_what_is_no_id_is_dropped(up: Up, account: Account, own: str):
    answer = await up.call("GET", "/chats", token=account.key, **{"X-Client-Request-Id": own})
    assert answer.status == 200
    assert "X-Client-Request-Id" not in answer.headers


@pytest.fixture(scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    """A mesh behind one proxy, which lets an address register twice."""
    home = tmp_path_factory.mktemp("behind") / "home"
    settings = {"TRUSTED_PROXY_HOPS": "1", "REGISTRATIONS_PER_ADDRESS": "2"}
    async with started(home, **settings) as running:
        yield running


async def test_a_proxy_tells_the_clients_address_and_clients_do_not(behind: Up):
    async def registered(forwarded: str) -> int:
        body = {"email": f"{uuid.uuid4().hex}@example.com"}
        answer = await behind.call(
            "POST",
            "/auth/register",
            body | {"password": "password123"},
            **{"X-Forwarded-For": forwarded},
        )
        return answer.status

    # What a client sends stands before what the proxy adds.
    one = [await registered(f"9.9.9.{n}, 203.0.113.7") for n in range(3)]
    assert one == [200, 200, 429]
    assert await registered("203.0.113.7, 203.0.113.8") == 200
    line = await logged(behind, "access.log", client="203.0.113.8")
    assert line["code"] == 200


async def test_without_a_proxy_nobody_is_told_an_address(up: Up, account: Account):
    own = f"forged-{account.id}"
    headers = {"X-Forwarded-For": "203.0.113.9", "X-Client-Request-Id": own}
    assert (await up.call("GET", "/chats", token=account.key, **headers)).status == 200
    assert (await logged(up, "access.log", client_request_id=own))["client"] == "127.0.0.1"


@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/chat/background"])
async def test_a_wrong_idempotency_key_is_refused_beside_a_request_id_too(
    up: Up, account: Account, path: str
):
    body = {"message": "Hello Ada", "model": "echo", "request_id": uuid.uuid4().hex}
    wrong = {"Idempotency-Key": "two words"}
    refused = await up.call("POST", path, body, account.token, **wrong)
    assert (refused.status, refused.reason) == (400, "INVALID_FIELDS")
    assert "Idempotency-Key" in refused.text
    good = {"Idempotency-Key": "one-word"}
    assert (await up.call("POST", path, body, account.token, **good)).status == 200
