"""Thoughts of a model that failed before it said anything: another answers, and they cost nothing."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import chat_service_pb2_grpc as pb_grpc
from tests import harness
from tests.fake_openai import UNBROKEN, End, FakeOpenAI, Script, models_file
from tests.harness import Mesh
from tests.integration.chat.streams import events_of, text_of
from tests.integration.conftest import Person

MODELS = """
[[models]]
id = "thinks"
provider = "openai"
fallback = ["stands-in"]
max_output_tokens = 1000
prompt_price = "1"
completion_price = "1"
reasoning = true
[[models]]
id = "stands-in"
provider = "groq"
max_output_tokens = 1000
prompt_price = "1"
completion_price = "1"
"""
THOUGHT = {"reasoning_content": "Let me think of this for a long while. " * 20}


@pytest.fixture(scope="module")
async def stub(
    mesh: Mesh, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[pb_grpc.ChatServiceStub]:
    folder: Path = tmp_path_factory.mktemp("models")
    settings = {**mesh.settings, "MODELS_FILE": models_file(folder, UNBROKEN + MODELS)}
    async with harness.replica(harness.replace(mesh, settings=settings), "chat") as second:
        yield pb_grpc.ChatServiceStub(await second.channel("chat"))


async def test_thoughts_of_who_was_replaced_are_not_charged(
    stub, person: Person, provider: FakeOpenAI, records
):
    provider.first[:] = [Script(deltas=(THOUGHT, THOUGHT), pause=0.05, end=End.CUT)]
    provider.script = Script(end=End.WITHOUT_USAGE)
    request = pb.StreamReplyRequest(message="Hi", model="thinks", store=False)
    events = await events_of(stub.StreamReply(request, timeout=10, metadata=person.by_key))
    assert text_of(events) == "Hello, world!"
    (record,) = await records(1)
    assert (record.model, record.status, record.basis) == ("stands-in", "completed", "estimated")
    assert record.completion_tokens < 10


async def test_thoughts_are_charged_where_nobody_stands_in(
    stub, person: Person, provider: FakeOpenAI, records
):
    """As they were written, whether an answer came of them or not."""
    provider.first[:] = [Script(deltas=(THOUGHT, THOUGHT), pause=0.05, end=End.CUT)]
    provider.script = Script(status=503)
    request = pb.StreamReplyRequest(message="Hi", model="thinks", store=False)
    events = []
    with pytest.raises(Exception, match="groq failed"):
        async for event in stub.StreamReply(request, timeout=10, metadata=person.by_key):
            events.append(event)
    (record,) = await records(1)
    assert (record.status, record.completion_tokens > 200) == ("failed", True)
