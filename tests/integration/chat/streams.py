"""Reading streams of replies."""

from collections.abc import AsyncIterator

from khesht.chat.v1 import chat_service_pb2 as pb

MODEL = "gpt-4o-mini"


async def events_of(stream: AsyncIterator[pb.StreamReplyResponse]) -> list[pb.StreamReplyResponse]:
    return [event async for event in stream]


def text_of(events: list[pb.StreamReplyResponse]) -> str:
    return "".join(event.token for event in events)
