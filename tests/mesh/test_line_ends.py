"""Ends of lines reach the model, and come back, as the caller wrote them."""

import grpc

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from tests.fake_openai import FakeOpenAI, Script
from tests.harness import bearer
from tests.mesh.running import Account, Up
from tests.support import eventually

TEXT = "one\r\ntwo\rthree\n\r\nfour\r\n"
MODEL = "gpt-4o-mini"


def asked(provider: FakeOpenAI) -> list[str]:
    """The last turn of each request that the provider got."""
    return [str(request.body["messages"][-1]["content"]) for request in provider.requests]


async def test_every_surface_keeps_them(up: Up, account: Account, provider: FakeOpenAI):
    provider.script = Script(pieces=("a\r\n", "b\r", "c"))
    turns = [{"role": "user", "content": TEXT}]
    whole = await up.call("POST", "/chat", {"message": TEXT, "model": MODEL}, account.key)
    stream = await up.call("POST", "/chat/stream", {"messages": turns, "model": MODEL}, account.key)
    bare = await up.call("POST", "/api/chat", {"user_message": TEXT, "model": MODEL}, account.key)
    openai = await up.call(
        "POST", "/v1/chat/completions", {"model": MODEL, "messages": turns}, account.key
    )
    chat_id = whole.body["chat_id"]
    stored = await up.call("GET", f"/chats/{chat_id}/messages", token=account.key)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{up.grpc}") as channel:
        native = await pb_grpc.ChatServiceStub(channel).CreateReply(
            pb.CreateReplyRequest(message=TEXT, model=MODEL),
            timeout=10,
            metadata=bearer(account.key),
        )

    assert asked(provider) == [TEXT] * 5
    assert [each["content"] for each in stored.body["messages"]] == [TEXT, "a\r\nb\rc"]
    assert "a\\r\\n" in stream.text
    assert openai.body["choices"][0]["message"]["content"] == "a\r\nb\rc"
    assert [whole.body["message"], bare.text, native.message] == ["a\r\nb\rc"] * 3


async def test_a_task_keeps_them(up: Up, account: Account, provider: FakeOpenAI):
    body = {"message": TEXT, "model": MODEL}
    task = await up.call("POST", "/chat/background", body, account.key)

    async def done():
        found = await up.call("GET", f"/chat/tasks/{task.body['task_id']}", token=account.key)
        return found.body if found.body["status"] == "completed" else None

    await eventually(done, within=30)

    assert asked(provider) == [TEXT]
