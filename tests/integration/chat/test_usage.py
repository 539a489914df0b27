"""Every reply that reached a provider is recorded, whatever becomes of it."""

import asyncio

import grpc
import psycopg
import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.streams import MODEL, events_of
from tests.integration.conftest import Person
from tests.support import eventually


@pytest.mark.parametrize("end", [End.WHOLE, End.WITHOUT_DONE])
async def test_usage_is_recorded_as_the_provider_counted(
    chat, person: Person, provider: FakeOpenAI, records, end: End
):
    provider.script = Script(tokens=(1_000, 500), end=end)
    reply = await chat.CreateReply(
        pb.CreateReplyRequest(message="Hi", model=MODEL),
        timeout=5,
        metadata=(*person.by_key, ("x-request-id", "request-of-the-edge")),
    )
    (record,) = await records(1)
    assert record.generation_id == reply.generation_id
    assert (record.request_id, record.key_id) == ("request-of-the-edge", person.key_id)
    assert (record.prompt_tokens, record.completion_tokens) == (1_000, 500)
    assert record.cost_usd == pytest.approx(1_000 * 0.15e-6 + 500 * 0.60e-6)
    assert (record.status, record.basis, record.provider) == ("completed", "provider", "openai")


async def test_usage_is_estimated_when_the_provider_does_not_count(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=("a", "b", "c"), end=End.WITHOUT_USAGE)
    await chat.CreateReply(
        pb.CreateReplyRequest(message="12345", model=MODEL), timeout=5, metadata=person.by_key
    )
    (record,) = await records(1)
    assert (record.basis, record.prompt_tokens, record.completion_tokens) == ("estimated", 7, 1)


def is_written(admin_dsn: str, generation_id: str) -> bool:
    """Whether any of a generation's text is stored."""
    with psycopg.connect(admin_dsn) as connection:
        found = connection.execute(
            "SELECT 1 FROM chat.journal WHERE generation_id = %(id)s UNION ALL"
            " SELECT 1 FROM chat.generations WHERE id = %(id)s AND tail IS NOT NULL UNION ALL"
            " SELECT 1 FROM chat.messages WHERE id = %(id)s",
            {"id": generation_id},
        )
        return found.fetchone() is not None


async def test_a_reply_to_a_chat_deleted_meanwhile_is_still_charged_and_forgotten(
    chat, person: Person, provider: FakeOpenAI, records, admin_dsn: str
):
    made = await chat.CreateChat(pb.CreateChatRequest(), timeout=5, metadata=person.by_key)
    provider.script = Script(pieces=("slow ",) * 10, pause=0.03)
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, chat_id=made.id)
    reply = asyncio.ensure_future(chat.CreateReply(request, timeout=5, metadata=person.by_key))
    await eventually(lambda: provider.requests)
    await chat.DeleteChat(pb.DeleteChatRequest(chat_id=made.id), timeout=5, metadata=person.by_key)
    answer = await reply
    assert answer.message == "slow " * 10
    assert len(await records(1)) == 1
    assert not is_written(admin_dsn, answer.generation_id)


async def test_a_deleted_chat_leaves_what_its_replies_cost_and_none_of_their_text(
    chat, person: Person, provider: FakeOpenAI, records, admin_dsn: str
):
    provider.script = Script(pieces=("slow ",) * 10, pause=0.03)  # Long enough for a segment.
    request = pb.CreateReplyRequest(message="Hi", model=MODEL, request_id="once")
    made = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    other = await chat.CreateReply(
        pb.CreateReplyRequest(message="Hi", model=MODEL), timeout=5, metadata=person.by_key
    )
    deleted = pb.DeleteChatRequest(chat_id=made.chat_id)
    await chat.DeleteChat(deleted, timeout=5, metadata=person.by_key)
    assert not is_written(admin_dsn, made.generation_id)
    assert is_written(admin_dsn, other.generation_id)
    assert len(await records(2)) == 2
    again = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    assert (again.message, again.chat_id != made.chat_id) == ("slow " * 10, True)


# Of "12345678": as many tokens as it has bytes, 8 around it, and 8,192 that may be added to it.
MOST_READ, MOST_WRITTEN = 8_208, 16_384


@pytest.mark.parametrize(
    ("tokens", "charged"),
    [
        ((3_000_000_000, 1), ("capped", MOST_READ, 1)),
        ((2**31 - 1, 2**31 - 1), ("capped", MOST_READ, MOST_WRITTEN)),
        ((2**30, 2**30), ("capped", MOST_READ, MOST_WRITTEN)),
        ((20, MOST_WRITTEN + 1), ("capped", 20, MOST_WRITTEN)),
        ((20, MOST_WRITTEN), ("provider", 20, MOST_WRITTEN)),
        ((-1, 5), ("estimated", 8, 5)),
        ((0, 5), ("estimated", 8, 5)),
        ((20, 0), ("estimated", 20, 3)),
    ],
)
async def test_a_provider_that_counts_what_can_not_be_is_not_believed(
    chat, person: Person, provider: FakeOpenAI, records, tokens: tuple[int, int], charged
):
    for counted in (tokens, (10, 20)):
        provider.script = Script(tokens=counted)
        request = pb.CreateReplyRequest(message="12345678", model=MODEL)
        await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    newest, nonsense = await records(2)
    assert (newest.basis, newest.total_tokens) == ("provider", 30)
    assert (nonsense.basis, nonsense.prompt_tokens, nonsense.completion_tokens) == charged


async def test_a_database_that_can_not_write_for_a_while_loses_nothing(
    chat, person: Person, provider: FakeOpenAI, records, admin_dsn: str
):
    def writable(yes: bool) -> None:
        mode = "off" if yes else "on"
        with psycopg.connect(admin_dsn, autocommit=True) as connection:
            connection.execute(f"ALTER ROLE khesht_chat SET default_transaction_read_only = {mode}")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'khesht_chat'"
            )

    provider.script = Script(pieces=("a", "b", "c"), pause=0.3)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    events = aiter(chat.StreamReply(request, timeout=15, metadata=person.by_key))
    await anext(events)
    writable(False)
    try:

        async def rest() -> list[pb.StreamReplyResponse]:
            return [event async for event in events]

        reply = asyncio.ensure_future(rest())
        done, _ = await asyncio.wait({reply}, timeout=2)
        assert not done  # It waits for its ending to be written.
        with pytest.raises(grpc.aio.AioRpcError) as refused:  # And none begins unwritten.
            again = pb.CreateReplyRequest(message="Hi", model=MODEL)
            await chat.CreateReply(again, timeout=15, metadata=person.by_key, wait_for_ready=True)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(provider.requests) == 1
    finally:
        writable(True)
    last = (await reply)[-1]
    assert last.full_text == "abc"
    chat_id = last.chat_id
    listed = await chat.ListMessages(
        pb.ListMessagesRequest(chat_id=chat_id),
        timeout=10,
        metadata=person.by_key,
        wait_for_ready=True,
    )
    assert len(listed.messages) == 2
    assert len(await records(1)) == 1


async def test_a_reply_cancelled_before_its_first_word_has_its_record(
    chat, person: Person, provider: FakeOpenAI, records
):
    provider.script = Script(pieces=(), end=End.SILENCE)
    request = pb.StreamReplyRequest(message="Hi", model=MODEL)
    call = chat.StreamReply(request, timeout=10, metadata=person.by_key)
    reading = asyncio.ensure_future(events_of(call))
    await eventually(lambda: provider.requests)
    reading.cancel()
    (record,) = await records(1)
    assert (record.status, record.total_tokens) == ("cancelled", 0)


async def test_a_chat_is_not_locked_while_the_texts_of_its_generations_are_erased(
    chat, person: Person, provider: FakeOpenAI, admin_dsn: str
):
    request = pb.CreateReplyRequest(message="Hi", model=MODEL)
    made = await chat.CreateReply(request, timeout=5, metadata=person.by_key)
    deletion = pb.DeleteChatRequest(chat_id=made.chat_id)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with (
        psycopg.connect(admin_dsn) as held,
        psycopg.connect(admin_dsn, autocommit=True) as another,
    ):
        held.execute("SELECT FROM chat.generations WHERE id = %s FOR UPDATE", [made.id])
        deleting = asyncio.ensure_future(
            chat.DeleteChat(deletion, timeout=5, metadata=person.by_key)
        )
        await eventually(lambda: another.execute(waiting).fetchone() != (0,))
        # As an ending does that has more to say in it.
        lock = "SELECT count(*) FROM (SELECT FROM chat.chats WHERE id = %s FOR UPDATE NOWAIT) AS c"
        assert another.execute(lock, [made.chat_id]).fetchone() == (1,)
        held.rollback()
        await deleting
