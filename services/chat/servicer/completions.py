"""OpenAI's wire format in, one command, the same out."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing

from google.api.httpbody_pb2 import HttpBody

from khesht.chat.v1 import completions_service_pb2 as pb
from khesht.chat.v1 import completions_service_pb2_grpc as pb_grpc
from mesh import errors, status
from mesh.calls import call
from mesh.server import Context
from services.chat.commands.replies import Replies
from services.chat.domain import completion, wire
from services.chat.domain.generation import Delta, Last, OutOfTime, Silence
from services.chat.servicer.asked import terms_of_body
from services.chat.servicer.events import check, tell_id
from services.chat.servicer.pings import Pings


class CompletionsServicer(pb_grpc.CompletionsServiceServicer):
    """Serves `khesht.chat.v1.CompletionsService`."""

    def __init__(self, replies: Replies, pings: Pings) -> None:
        """Takes the commands, and when streams say that they are alive."""
        self._replies = replies
        self._pings = pings

    async def CreateChatCompletion(
        self, request: pb.CreateChatCompletionRequest, context: Context
    ) -> AsyncIterator[pb.CreateChatCompletionResponse]:
        """Relays a reply. What fails before the first piece is raised alone."""
        now = call.current()
        asked: completion.Completion = now.parsed or completion.read(request.body.data)
        own = now.metadata.get("x-provider-key")
        begun = False
        async with self._replies.relay(
            now.caller, terms_of_body(request.body), asked, own
        ) as generation:
            tell_id(generation)
            # A whole answer says nothing before its status.
            following = self._pings.follow(generation) if asked.stream else generation.follow()
            async with aclosing(following) as events:
                async for event in events:
                    match event:
                        case Delta(_, _, raw) if raw:
                            begun = True
                            yield _piece(asked.stream, raw)
                        case Silence():  # From here on a failure has no status.
                            begun = True
                            yield _piece(asked.stream, wire.PING)
                        case Last() | OutOfTime():
                            try:
                                check(event)
                            except errors.MeshError as error:
                                if asked.stream and begun:
                                    yield _piece(asked.stream, _broken(error))
                                raise
                            if asked.stream:
                                yield _piece(asked.stream, wire.DONE)


def _piece(stream: bool, data: bytes) -> pb.CreateChatCompletionResponse:
    kind = "text/event-stream" if stream else "application/json"
    return pb.CreateChatCompletionResponse(body=HttpBody(content_type=kind, data=data))


def _broken(error: errors.MeshError) -> bytes:
    told = status.describe(error).to_envelope(call.current().request_id, openai=True)
    return wire.event(json.loads(told))
