"""What is counted and charged, by what providers really send."""

import asyncio
import contextlib
import json

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.usage.v1 import usage_service_pb2 as usage_pb
from khesht.usage.v1 import usage_service_pb2_grpc as usage_grpc
from tests import harness
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.streams import MODEL
from tests.integration.conftest import Person
from tests.support import eventually


@pytest.fixture
async def usage(mesh: harness.Mesh) -> usage_grpc.UsageServiceStub:
    return usage_grpc.UsageServiceStub(await mesh.channel("usage"))


def line(**chunk: object) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(usage: object = None, **fields: object) -> bytes:
    more = {} if usage is None else {"usage": usage}
    return line(choices=[{"index": 0, "delta": fields}], **more)


async def broken_off(chat, person: Person) -> None:
    """A stream whose provider breaks off, read to its end."""
    request = pb.StreamReplyRequest(message="Hi there", model=MODEL)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in chat.StreamReply(request, timeout=10, metadata=person.by_key):
            pass


@pytest.mark.parametrize(
    ("sent", "charged"),
    [
        (
            (delta({"prompt_tokens": 900, "completion_tokens": 40}, content="a"),),
            ("provider", 900, 40),
        ),
        (
            (
                delta({"prompt_tokens": 900, "completion_tokens": 40}, content="a"),
                delta(content="word " * 10),
            ),
            ("estimated", 900, 50),
        ),
        (  # The last one counts.
            (
                delta({"prompt_tokens": 900, "completion_tokens": 1}, content="a"),
                delta(content="word "),
                line(choices=[], usage={"prompt_tokens": 900, "completion_tokens": 40}),
            ),
            ("provider", 900, 40),
        ),
        (
            (delta({"prompt_tokens": 0, "completion_tokens": 0}, content="word " * 10),),
            ("estimated", 6, 10),
        ),
        ((delta(content="word " * 20_000),), ("estimated", 6, 20_000 - 3_616)),  # At most 16,384.
        ((delta(reasoning_content="hm. " * 500),), ("estimated", 6, 575)),
        (
            (
                delta(
                    tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "word " * 100}}]
                ),
            ),
            ("estimated", 6, 100),
        ),
        ((delta(refusal="word " * 10),), ("estimated", 6, 10)),
        ((delta(role="assistant", content=""),), ("estimated", 0, 0)),
    ],
    ids=[
        "reported with it",
        "and more after it",
        "reported twice",
        "reported as nothing",
        "words in one piece",
        "thoughts",
        "a call of a tool",
        "a refusal",
        "a role alone",
    ],
)
@pytest.mark.parametrize("end", [End.CUT, End.EARLY, End.ERROR])
async def test_what_breaks_off_is_charged_as_far_as_it_was_counted_and_about_from_there(
    chat, person: Person, provider: FakeOpenAI, records, sent: tuple[bytes, ...], charged, end: End
):
    provider.script = Script(raw=b"".join(sent), pieces=(), end=end)
    await broken_off(chat, person)
    (record,) = await records(1)
    assert record.status == "failed"
    counted = (record.basis, record.prompt_tokens, record.completion_tokens)
    if end is End.CUT and counted[2] == 0:
        return  # A reset may take with it what came before.
    assert counted == charged


async def test_a_client_that_leaves_pays_for_the_words_and_not_for_the_pieces(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word " * 1_000,) * 5, end=End.SILENCE)
    request = pb.StreamReplyRequest(message="Hi there", model=MODEL)
    call = chat.StreamReply(request, timeout=10, metadata=person.by_key)
    size = 0
    async for event in call:
        size += len(event.token)
        if size >= 25_000:
            break
    call.cancel()
    (record,) = await records(1)
    assert (record.status, record.basis) == ("cancelled", "estimated")
    assert (record.prompt_tokens, record.completion_tokens) == (6, 5_000)


async def test_a_client_that_leaves_after_a_count_pays_by_it(
    chat, person: Person, provider: FakeOpenAI, records
):
    counted = {"prompt_tokens": 900, "completion_tokens": 40}
    provider.script = Script(raw=delta(counted, content="a"), pieces=(), end=End.SILENCE)
    request = pb.StreamReplyRequest(message="Hi there", model=MODEL)
    call = chat.StreamReply(request, timeout=10, metadata=person.by_key)
    await anext(aiter(call))
    call.cancel()
    (record,) = await records(1)
    assert (record.status, record.basis) == ("cancelled", "provider")
    assert (record.prompt_tokens, record.completion_tokens) == (900, 40)


async def test_cached_and_thought_tokens_are_in_the_record_the_summary_and_the_file(
    chat, usage, person: Person, provider: FakeOpenAI, records
):
    counted = {
        "prompt_tokens": 1_000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 900},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }
    ending = line(choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}])
    raw = ending + line(choices=[], usage=counted) + b"data: [DONE]\n\n"
    provider.script = Script(raw=raw, pieces=(), end=End.EARLY)
    request = pb.CreateReplyRequest(message="Hi", model=MODEL)
    await chat.CreateReply(request, timeout=10, metadata=person.by_key)
    (record,) = await records(1)
    assert (record.cached_read_tokens, record.reasoning_tokens) == (900, 64)
    # 100 at 0.15, 900 from the cache at 0.075, and 100 written at 0.60 USD a million.
    assert record.cost_usd == pytest.approx((100 * 0.15 + 900 * 0.075 + 100 * 0.60) / 1e6)
    summary = await usage.GetUsageSummary(
        usage_pb.GetUsageSummaryRequest(group_by="model"), timeout=5, metadata=person.by_key
    )
    for sums in (summary, summary.groups[0]):
        assert (sums.total_cached_read_tokens, sums.total_reasoning_tokens) == (900, 64)
    export = usage.ExportUsage(usage_pb.ExportUsageRequest(), timeout=5, metadata=person.by_key)
    names, row = b"".join([piece.body.data async for piece in export]).decode().splitlines()
    told = dict(zip(names.split(","), row.split(","), strict=True))
    assert (told["cached_read_tokens"], told["reasoning_tokens"], told["cached_write_tokens"]) == (
        "900",
        "64",
        "0",
    )


async def test_a_good_reply_that_is_longer_by_our_count_than_its_limit_is_good(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("Yes", "."), tokens=(10, 2))
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, max_tokens=3)
    reply = await chat.CreateReply(request, timeout=10, metadata=person.by_key)
    assert (reply.message, reply.usage.completion_tokens) == ("Yes.", 2)
    assert (await records(1))[0].basis == "provider"


async def test_the_cost_of_a_killed_stream_is_told_once(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("word ",) * 50, pause=0.01, end=End.CUT)
    await asyncio.gather(*(broken_off(chat, person) for _ in range(5)))
    found = await records(5)
    assert {record.basis for record in found} == {"estimated"}
    assert await eventually(lambda: all(40 <= each.completion_tokens <= 50 for each in found))
