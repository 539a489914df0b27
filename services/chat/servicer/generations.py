"""Serves generations as what they are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar
from uuid import UUID

from khesht.chat.v1 import generations_service_pb2 as pb
from khesht.chat.v1 import generations_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.chat.commands.generations import Generations
from services.chat.commands.replies import spender
from services.chat.commands.revocation import Revocation
from services.chat.domain.generation import Generation, OutOfTime, Silence
from services.chat.domain.rows import Row
from services.chat.servicer.events import check, refused, tell_id, to_event, to_usage
from services.chat.servicer.pings import Pings, as_comments, until

# Whether the reader may still read.
_LOOK_EVERY = 0.5

# Of which a next one can still be told.
_LAST_PLACE = 2**31 - 2

G = TypeVar("G", pb.Generation, pb.GetGenerationResponse, pb.CancelGenerationResponse)
W = TypeVar("W", pb.GetGenerationResponse, pb.CancelGenerationResponse)


class GenerationsServicer(pb_grpc.GenerationsServiceServicer):
    """Serves `khesht.chat.v1.GenerationsService`."""

    def __init__(self, generations: Generations, revocation: Revocation, pings: Pings) -> None:
        """Takes the commands, who looks after readers, and when streams say that they are alive."""
        self._generations = generations
        self._revocation = revocation
        self._pings = pings

    async def ListGenerations(
        self, request: pb.ListGenerationsRequest, context: Context
    ) -> pb.ListGenerationsResponse:
        """Lists the caller's generations."""
        wanted: dict[str, Any] = {"status": request.status} if request.status else {}
        if request.HasField("chat_id"):
            wanted["chat_id"] = UUID(request.chat_id)
        if request.HasField("key_id"):
            wanted["key_id"] = UUID(request.key_id)
        page, token = await self._generations.page(
            _owner(), wanted, request.page_size, request.page_token
        )
        return pb.ListGenerationsResponse(
            generations=[_generation(pb.Generation, row) for row in page],
            next_page_token=token,
        )

    async def GetGeneration(
        self, request: pb.GetGenerationRequest, context: Context
    ) -> pb.GetGenerationResponse:
        """Gets one of the caller's generations."""
        row, made = await self._generations.get(_owner(), UUID(request.generation_id))
        return _whole(pb.GetGenerationResponse, row, made)

    async def FollowGeneration(
        self, request: pb.FollowGenerationRequest, context: Context
    ) -> AsyncIterator[pb.FollowGenerationResponse]:
        """Streams the events of one of the caller's generations."""
        given = _last_event_id()
        after = min(request.after_seq if given is None else given, _LAST_PLACE)
        row = await self._generations.row(_owner(), UUID(request.generation_id))
        with self._revocation.watching(spender(call.current().caller)) as watched:
            async with self._generations.following(row) as generation:
                tell_id(generation)
                as_comments()
                clock, pings = asyncio.get_running_loop().time, self._pings
                look, ping_at = min(_LOOK_EVERY, pings.interval), clock() + pings.first
                following = generation.follow(
                    after, silence=look, first=min(look, pings.first), until=until()
                )
                async with aclosing(following) as events:
                    async for event in events:
                        if watched.error is not None:
                            yield refused(pb.FollowGenerationResponse, generation, watched.error)
                            raise watched.error
                        if isinstance(event, Silence) and clock() < ping_at:
                            continue
                        ping_at = clock() + pings.interval
                        yield to_event(pb.FollowGenerationResponse, generation, event)
                        if isinstance(event, OutOfTime):
                            check(event)

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: Context
    ) -> pb.CancelGenerationResponse:
        """Ends one of the caller's generations."""
        row, made = await self._generations.cancel(_owner(), UUID(request.generation_id))
        return _whole(pb.CancelGenerationResponse, row, made)


def _owner() -> UUID:
    return call.current().caller.user_id


def _last_event_id() -> int | None:
    given = call.current().metadata.get("last-event-id", "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise errors.invalid("Last-Event-ID", "is the seq of an event")
    return int(given)


def _whole(message: type[W], row: Row, made: Generation) -> W:
    answer = _generation(message, row)
    answer.last_seq = made.seq + (made.ending is not None)
    answer.text = made.text
    return answer


def _generation(message: type[G], row: Row) -> G:
    answer = message(
        id=str(row.id),
        status=row.status,
        reason=row.reason,
        model=row.model,
        provider=row.provider,
        chat_id=str(row.chat_id) if row.chat_id else None,
        key_id=str(row.key_id) if row.key_id else None,
        warning=row.warning,
        created_at=timestamp(row.created_at),
    )
    ending = row.ending
    if ending is not None and row.ended_at is not None:
        answer.finish_reason = ending.finish_reason
        answer.usage.CopyFrom(to_usage(ending.tokens))
        if row.basis is not None:
            answer.basis = row.basis
        answer.ended_at.CopyFrom(timestamp(row.ended_at))
    return answer
