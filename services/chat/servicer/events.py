"""The events of a generation as messages."""

from typing import TypeVar

from khesht.chat.v1 import chat_service_pb2 as pb
from khesht.chat.v1 import generations_service_pb2 as generations_pb
from mesh import errors, status
from mesh.calls import call
from services.chat.domain.generation import (
    Delta,
    Ending,
    Event,
    Generation,
    Last,
    OutOfTime,
    Restarted,
    Silence,
    Status,
)
from services.chat.domain.history import left_out_in
from services.chat.domain.tokens import Tokens

E = TypeVar("E", pb.StreamReplyResponse, generations_pb.FollowGenerationResponse)


def to_event(message: type[E], generation: Generation, event: Event) -> E:
    """The message of one event; what ends for want of time is told as a failure."""
    generation_id = str(generation.id)
    match event:
        case Delta(seq, text, _):
            return message(generation_id=generation_id, seq=seq, token=text)
        case Restarted(seq):
            return message(generation_id=generation_id, seq=seq, restarted=True)
        case Last(seq, ending):
            return _last(message(generation_id=generation_id, seq=seq), generation, ending)
        case Silence(seq):
            return message(generation_id=generation_id, seq=seq, ping=True)
        case OutOfTime():
            return refused(message, generation, errors.no_time())


def _last(event: E, generation: Generation, ending: Ending) -> E:
    if ending.error is not None:
        event.error.CopyFrom(to_error(ending.error))
        event.error.request_id = call.current().request_id
    else:
        event.full_text = generation.text
        if ending.status is Status.CANCELLED:
            event.cancelled = True
        else:
            event.done = True
    if generation.warning:
        event.warning = generation.warning
    if left_out := left_out_in(generation.warning):
        event.messages_left_out = left_out
    event.finish_reason = ending.finish_reason
    event.usage.CopyFrom(to_usage(ending.tokens))
    event.model = ending.model
    chat_id = chat_id_of(generation)
    if chat_id is not None:
        event.chat_id = chat_id
    return event


def check(last: Last | OutOfTime) -> None:
    """Raises what the reader of a stream that ends by `last` is told, if anything failed."""
    if isinstance(last, OutOfTime):
        raise errors.no_time()
    last.ending.check()


def refused(message: type[E], generation: Generation, error: errors.MeshError) -> E:
    """The last message of one who may not read on."""
    event = message(generation_id=str(generation.id), seq=generation.seq)
    event.error.CopyFrom(to_error(error))
    event.error.request_id = call.current().request_id
    return event


def to_error(error: errors.MeshError) -> pb.StreamError:
    """What a stream says of a failure."""
    described = status.describe(error)
    return pb.StreamError(
        code=described.http_code,
        status=described.status,
        reason=described.reason,
        message=described.message,
        type=described.type,
        details=described.packed_details(),
    )


def to_usage(tokens: Tokens) -> pb.Usage:
    """The tokens of a generation."""
    return pb.Usage(
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        total_tokens=tokens.total,
    )


def chat_id_of(generation: Generation) -> str | None:
    """The chat that it belongs to."""
    return str(generation.origin.chat_id) if generation.origin.chat_id else None


def tell_id(generation: Generation) -> None:
    """Says in a header of the answer which generation it is, and what to beware of."""
    call.current().headers.append(("x-generation-id", str(generation.id)))
    tell_warning(generation)


def tell_warning(generation: Generation) -> None:
    """Says in a header what to beware of, as far as that is known; it may be said again."""
    if generation.warning:
        call.current().warnings["generation"] = generation.warning
