"""Native gRPC through the edge, and what may not be reached there."""

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_grpc
from khesht.usage.v1 import usage_internal_service_pb2 as usage_pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as usage_grpc
from mesh import status
from mesh.client import channel
from mesh.local.home import Home
from mesh.tls import Certificate
from tests.fake_openai import End, FakeOpenAI, Script
from tests.harness import bearer
from tests.mesh.running import Account, Up


async def test_a_stream_is_read_by_the_stubs(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b", "c"), pause=0.05)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as open_channel:
        stub = chat_grpc.ChatServiceStub(open_channel)
        request = chat_pb.StreamReplyRequest(message="Hi", model="gpt-4o-mini")
        events = [
            event
            async for event in stub.StreamReply(request, timeout=10, metadata=bearer(account.key))
        ]
    assert [event.token for event in events] == ["a", "b", "c", ""]
    assert events[-1].done
    assert events[-1].full_text == "abc"


async def test_errors_keep_their_details(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("a",), pause=0.05, end=End.CUT)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as open_channel:
        stub = chat_grpc.ChatServiceStub(open_channel)
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.ListChats(chat_pb.ListChatsRequest(), timeout=5)
        call = stub.StreamReply(
            chat_pb.StreamReplyRequest(message="Hi", model="fast"),
            timeout=10,
            metadata=bearer(account.key),
        )
        events = []
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            async for event in call:
                events.append(event)
    assert missing.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert status.reason_of(missing.value) == "MISSING_CREDENTIALS"
    assert "khesht-error" not in dict(missing.value.trailing_metadata())
    assert [event.WhichOneof("event") for event in events] == ["token", "error"]
    assert status.reason_of(broken.value) == "PROVIDER_BROKE_OFF"


async def test_the_terminal_client_logs_in_and_streams(up: Up, account: Account):
    up.environment["KHESHT_PASSWORD"] = "password123"
    code, output = await up.khesht(
        *("chat", "--username", account.email, "--model", "echo"), stdin="good morning\n\n"
    )
    assert code == 0, output
    assert "good morning\n[echo, 4 tokens]" in output


async def test_the_terminal_client_fails_when_a_reply_did(up: Up, account: Account):
    up.environment["KHESHT_PASSWORD"] = "password123"
    too_long = "x" * 10_001
    code, output = await up.khesht("chat", "--username", account.email, stdin=f"{too_long}\n")
    assert code == 1, output
    assert "10000" in output


@pytest.mark.parametrize("where", [(), ("--address",)], ids=["own", "elsewhere"])
async def test_the_terminal_client_looks_for_the_model_first(
    up: Up, account: Account, where: tuple[str, ...]
):
    # Elsewhere it is the mesh that knows the models, and tells who has logged in.
    address = (*where, f"localhost:{up.grpc}") if where else ()
    up.environment["KHESHT_PASSWORD"] = "password123" if where else ""
    command = ("chat", "--username", account.email, "--model", "nope", *address)
    code, output = await up.khesht(*command, stdin="good morning\n")
    assert code == 2, output
    assert "no model nope" in output
    assert "password" not in output
    assert "Type a message" not in output


async def test_the_terminal_client_says_when_the_password_is_wrong(up: Up, account: Account):
    up.environment["KHESHT_PASSWORD"] = "not the password"
    code, output = await up.khesht("chat", "--username", account.email)
    assert code == 2
    assert "wrong username, email or password" in output
    assert "Traceback" not in output


async def test_internal_methods_are_not_reached_through_the_edge(up: Up):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as open_channel:
        stub = internal_grpc.KeysInternalServiceStub(open_channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Authorize(internal_pb.AuthorizeRequest(api_key="ai_x"), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    service = "khesht.keys.v1.KeysInternalService"
    for path in (
        f"/{service}/Authorize",
        f"/{service}%2FAuthorize",
        f"/chats%2F..%5C{service}/Authorize",
    ):
        for kind in ("application/json", "application/grpc", "application/grpc-web+proto"):
            answer = await up.call("POST", path, b"{}", **{"Content-Type": kind})
            if "web" in kind:  # told as gRPC-Web's clients read it
                assert (answer.status, answer.headers.get("grpc-status")) == (200, "12"), path
            else:
                assert answer.status in (404, 415), (path, kind)


@pytest.mark.parametrize("peer", ["items", "edge", "operator"])
async def test_a_certificate_under_another_name_is_refused(up: Up, peer: str):
    """Same authority, and not on the method's list: RecordUsage is for chat alone."""
    certs = Home(up.home).certs
    certificate = Certificate.read(certs / f"{peer}.crt", certs / f"{peer}.key", certs / "ca.crt")
    address = (await up.statuses())["usage"]["address"]
    async with channel("usage", address, certificate) as open_channel:
        stub = usage_grpc.UsageInternalServiceStub(open_channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.RecordUsage(usage_pb.RecordUsageRequest(), timeout=5, wait_for_ready=True)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert status.reason_of(refused.value) == "PEER_NOT_ALLOWED"


async def test_a_service_takes_no_call_without_a_certificate(up: Up):
    address = (await up.statuses())["items"]["address"]
    async with grpc.aio.insecure_channel(address) as open_channel:
        stub = chat_grpc.ChatServiceStub(open_channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListModels(chat_pb.ListModelsRequest(), timeout=3)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_no_message_is_refused_in_our_words(up: Up):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as open_channel:
        call = open_channel.unary_unary("/khesht.chat.v1.ChatService/CreateReply")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\xff\xff", timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status.reason_of(refused.value) == "MALFORMED_REQUEST"
    assert "Error parsing" not in str(refused.value.details())


async def test_browsers_may_speak_grpc_web(up: Up, account: Account):
    """As the protocol has it: frames of a flag, a length and a message; the last is trailers."""
    request = chat_pb.GetModelRequest(model_id="fast").SerializeToString()
    body = b"\0" + len(request).to_bytes(4, "big") + request
    headers = {"Content-Type": "application/grpc-web+proto", "X-Grpc-Web": "1"}
    headers["Authorization"] = f"Bearer {account.key}"
    url = f"{up.url}/khesht.chat.v1.ChatService/GetModel"
    async with up.http.post(url, data=body, headers=headers) as answer:
        assert answer.headers["Content-Type"] == "application/grpc-web+proto"
        frames = await answer.read()
    length = int.from_bytes(frames[1:5], "big")
    model = chat_pb.GetModelResponse.FromString(frames[5 : 5 + length])
    assert (frames[0], model.id) == (0, "gpt-4o-mini")
    assert b"grpc-status:0" in frames[5 + length :].replace(b" ", b"")
