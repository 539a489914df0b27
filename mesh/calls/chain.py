"""The one interceptor of a server: does around every RPC what the package lists.

The order is written out once, in `_admit`. Handlers are wrapped when first
called and kept, so that nothing is built per call.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, closing, nullcontext
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # a C module without types

from mesh import errors, memory, status
from mesh.access import EDGE, INFRASTRUCTURE, Caller, Rule
from mesh.calls import bodies, observe, openai_headers, peers, unseen
from mesh.calls.bodies import SIZE, SMALL_BYTES, Bodies
from mesh.calls.call import Call, begin, check_time
from mesh.calls.reader import Reader
from mesh.calls.shares import Shares
from mesh.calls.validate import Validator
from mesh.config import DEFAULT_CALL_LIMITS, CallLimits
from mesh.identity.identity import Identity

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("mesh")

# More than this takes only who serves pictures.
_USUAL_REQUEST_BYTES = DEFAULT_CALL_LIMITS.request_bytes
# What tells callers apart before it is known who they are.
_CALLER = ("authorization", "x-api-key", "api-key", "x-khesht-client-address")

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Chain(grpc.aio.ServerInterceptor):
    """Wraps every method of a server; `live` holds the tasks that serve calls now."""

    def __init__(
        self,
        rules: Mapping[str, Rule],
        identity: Identity,
        limits: CallLimits = DEFAULT_CALL_LIMITS,
    ) -> None:
        """Takes the rule of each method, who finds out who calls, and what one caller may take."""
        self.rules = rules
        self.shares = Shares(limits.calls, limits.account_share)
        self._reader_timeout = limits.reader_timeout
        self._bodies = Bodies(limits.large_requests_bytes)
        self._takes_large = limits.request_bytes > _USUAL_REQUEST_BYTES
        self._lenient = limits.unknown_fields == "warn"
        self._identity = identity
        self._validator = Validator()
        self._wrapped: dict[str, Any] = {}
        self.live: set[asyncio.Task[Any]] = set()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:  # noqa: ANN401 - handlers are untyped in gRPC
        """The wrapped handler of the method, or None when there is no such method."""
        method: str = handler_call_details.method
        handler = self._wrapped.get(method)
        if handler is None:
            handler = self._wrap(method, await continuation(handler_call_details))
        if handler is None or not self._takes_large:
            return handler
        metadata: dict[str, Any] = dict(handler_call_details.invocation_metadata)
        size = int(metadata.get(SIZE, "0"))
        if size <= SMALL_BYTES:
            return handler
        return await self._let_in(metadata, size, method) or handler

    async def _let_in(self, metadata: dict[str, Any], size: int, method: str) -> Any:  # noqa: ANN401 - as above
        """Waits until a large request may be read. What refuses it unread, where it may not."""
        caller = tuple(metadata.get(name) for name in _CALLER)
        try:
            leave = await self._bodies.let_in(caller, size)
        except errors.Unavailable as full:
            refusal = full  # `except` deletes its name.

            async def refuse(_: Any, context: Any) -> None:  # noqa: ANN401 - as above
                async with _Served(self, method, context):
                    raise refusal

            return grpc.stream_stream_rpc_method_handler(refuse)
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self._left(leave))
        return None

    def _left(self, leave: Callable[[], None]) -> None:
        leave()
        if not self._bodies.taken:  # What they took would stay with this process.
            memory.give_back()

    def _wrap(self, method: str, handler: Any) -> Any:  # noqa: ANN401 - as above
        """The handler with all that is done around it, which is kept; None for None."""
        if handler is None:  # gRPC answers UNIMPLEMENTED.
            return None
        kind = _kind(handler)
        if method in INFRASTRUCTURE:
            wrapped = handler._replace(**{kind: self._guarded(method, handler, kind)})
        elif kind == "unary_stream":
            wrapped = handler._replace(unary_stream=self._stream(method, handler))
        else:
            wrapped = handler._replace(unary_unary=self._unary(method, handler))
        wrapped = wrapped._replace(request_deserializer=_tolerant(handler.request_deserializer))
        self._wrapped[method] = wrapped
        return wrapped

    async def _admit(self, call: Call, context: Any, request: Any) -> None:  # noqa: ANN401 - as above
        rule = self.rules[call.method]
        if request is None:
            raise errors.invalid("", "not a message of this method", reason="MALFORMED_REQUEST")
        check_time(call)
        call.peer = peers.peer_of(context)
        peers.check(call.peer, rule)
        call.principal = await self._identity.identify(call, rule, request)
        self._check_unseen(call, request)
        self._validator.check(request)
        bodies.read()

    def _check_unseen(self, call: Call, request: Message) -> None:
        unseen.check_body(call)
        unseen.check_query(call)
        unknown = unseen.unknown_names(call, request)
        if unknown and self._lenient:
            call.warnings["fields"] = f"unknown-fields: {', '.join(unknown)}"
        elif unknown:
            wrong = (errors.Violation(name, "no such field") for name in unknown)
            raise errors.InvalidRequest(*wrong)

    def _unary(self, method: str, handler: Any) -> Callable[..., Awaitable[Any]]:  # noqa: ANN401 - as above
        answer = handler.unary_unary

        async def unary(request: Any, context: Any) -> Any:  # noqa: ANN401 - as above
            async with _Served(self, method, context) as call:
                async with asyncio.timeout_at(call.deadline):
                    await self._admit(call, context, request)
                    with self._share(call):
                        response = await answer(request, context)
                if headers := self._headers(call):
                    await context.send_initial_metadata(headers)
                return response

        return unary

    def _stream(self, method: str, handler: Any) -> Callable[..., Awaitable[None]]:  # noqa: ANN401 - as above
        answer = handler.unary_stream

        # A coroutine that writes, and not a generator: a generator that waits in
        # a held-up `yield` is not told that its reader left, and here a slow
        # reader is felt at once.
        async def stream(request: Any, context: Any) -> None:  # noqa: ANN401 - as above
            async with (
                _Served(self, method, context) as call,
                asyncio.timeout_at(call.deadline),
            ):
                await self._admit(call, context, request)
                async with AsyncExitStack() as held:
                    held.enter_context(self._share(call))
                    messages = await held.enter_async_context(aclosing(answer(request, context)))
                    with closing(Reader(context, self._reader_timeout, held)) as reader:
                        begun = False
                        async for message in messages:
                            if not begun and (headers := self._headers(call)):
                                await context.send_initial_metadata(headers)
                                call.headers, call.warnings = [], {}
                            begun = True
                            await reader.write(message)

        return stream

    def _headers(self, call: Call) -> list[tuple[str, str]]:
        """Those of the answer, which begins now."""
        if self.rules[call.method].openai:
            return call.told + openai_headers.of_answer(call)
        return call.told

    def _share(self, call: Call) -> AbstractContextManager[None]:
        """Counts a call while it lasts: of its account, or of a network address.

        Processes call on nobody's behalf, and are not counted.
        """
        wanted, caller = self.rules[call.method].caller, call.principal
        if wanted is Caller.PROCESS:
            return nullcontext()
        if caller is None or caller.is_anonymous:
            return self.shares.one_more((wanted, call.client_address))
        return self.shares.one_more(caller.user_id)

    def _guarded(self, method: str, handler: Any, kind: str) -> Callable[..., Awaitable[Any]]:  # noqa: ANN401 - as above
        """Health and reflection: for processes on their list, and nothing else to do."""
        answer, rule = getattr(handler, kind), self.rules[method]

        async def guarded(request: Any, context: Any) -> Any:  # noqa: ANN401 - as above
            peer = peers.peer_of(context)
            if peer not in rule.peers:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not for this process")
            if peer == EDGE and rule.caller is not Caller.PROCESS:
                async with _Served(self, method, context) as call:
                    call.peer = peer
                    call.principal = await self._identity.identify(call, rule, request)
                    with self._share(call):
                        await told(_understood(request), context)
                return None
            return await told(request, context)

        async def told(request: Any, context: Any) -> Any:  # noqa: ANN401 - as above
            result = answer(request, context)
            if inspect.isawaitable(result):
                return await result
            async for message in result:
                await context.write(message)
            return None

        return guarded


async def _understood(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages of a stream. Raises InvalidRequest for one that is none."""
    async for request in requests:
        if request is None:
            raise errors.invalid("", "not a message of this method", reason="MALFORMED_REQUEST")
        yield request


class _Served:
    """The outermost layer: begins the call, and ends it with one status and one line."""

    def __init__(self, chain: Chain, method: str, context: Any) -> None:  # noqa: ANN401 - as above
        self._chain = chain
        self._context = context
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # gRPC made one
        self._call = begin(method, context, chain.rules[method].limit)

    async def __aenter__(self) -> Call:
        self._chain.live.add(self._task)
        return self._call

    async def __aexit__(self, _: object, raised: BaseException | None, __: object) -> None:
        call, code, reason = self._call, "OK", ""
        try:
            if raised is None:
                return
            gone = isinstance(raised, asyncio.CancelledError) and self._task.cancelling()
            # Nobody is left to be written to, and nothing is wrong here.
            if gone or isinstance(raised, cygrpc.ExecuteBatchError):
                code, reason = "CANCELLED", "CANCELLED"
                return
            # A CancelledError that nobody asked for ends no call by itself: gRPC
            # would leave the client waiting for ever (grpc/grpc#29248).
            described = status.describe(raised)
            code, reason = described.status, described.reason
            if described.unknown:
                log.error(described.message, rpc=call.method, exc_info=raised)
            await self._refuse(described)
        finally:
            self._chain.live.discard(self._task)
            observe.ended(call, code, reason, time.perf_counter() - call.began)

    async def _refuse(self, described: status.Description) -> NoReturn:
        call = self._call
        trailers: list[tuple[str, str | bytes]] = [*call.told]
        details = described.to_rpc_status().SerializeToString()
        trailers.append(("grpc-status-details-bin", details))
        if described.retry_after is not None:
            trailers.append(("retry-after", str(described.retry_after)))
        openai = self._chain.rules[call.method].openai
        if openai:
            trailers += openai_headers.of_error(call, described)
        if call.transcoded:  # The edge makes this the body.
            envelope = described.to_envelope(call.request_id, openai=openai)
            trailers.append(("khesht-error", envelope))
        await self._context.abort(described.code, described.message, tuple(trailers))
        raise AssertionError("abort always raises")


def _tolerant(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Gives None for what is no message: gRPC itself would tell the caller why, in Python's words."""

    def tolerant(data: bytes) -> Any:  # noqa: ANN401 - as above
        try:
            return deserialize(data)
        except DecodeError:
            return None

    return tolerant


def _kind(handler: Any) -> str:  # noqa: ANN401 - as above
    sides = {False: "unary", True: "stream"}
    return f"{sides[handler.request_streaming]}_{sides[handler.response_streaming]}"
