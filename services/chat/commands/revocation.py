"""Ends what runs and waits for callers who may not call any more, within 2 seconds.

Keys and auth are asked again and again of those for whom something runs, so nothing is
lost with a notice that does not come. While they do not answer, what runs goes on.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import grpc
import structlog

from khesht.auth.v1 import auth_internal_service_pb2 as auth_pb
from khesht.auth.v1 import auth_internal_service_pb2_grpc as auth_grpc
from khesht.keys.v1 import keys_internal_service_pb2 as keys_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as keys_grpc
from mesh import errors
from mesh.db import Database
from mesh.identity.identity import budget_of
from mesh.identity.principal import ANONYMOUS_ID, Budget
from services.chat.commands.budget import Spender
from services.chat.commands.runner import Runner
from services.chat.domain.rows import Failure
from services.chat.store import generations

log: structlog.typing.FilteringBoundLogger = structlog.get_logger("revocation")

LOOK_EVERY_S = 0.5
_ANSWERED_WITHIN_S = 1.0
# As the contracts have it.
_MOST_AT_ONCE = 1_000

# A reason, and a text for people.
Why = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Ended:
    """Who may not call any more, and why: accounts and sessions by id, and keys.

    A key is named with the secret that was sent, or with "" for whichever it has.
    """

    callers: Mapping[UUID, Why] = field(default_factory=dict)
    keys: Mapping[tuple[UUID, str], Why] = field(default_factory=dict)

    def error_of(self, caller: Spender) -> errors.Unauthenticated | None:
        """What `caller` is told, if it is among them."""
        why = self.callers.get(caller.user_id)
        if why is None and caller.session_id is not None:
            why = self.callers.get(caller.session_id)
        if why is None and caller.key_id is not None:
            why = self.keys.get((caller.key_id, caller.secret_id))
        if why is None:
            return None
        reason, text = why
        return errors.Unauthenticated(reason, text)


@dataclass(slots=True, eq=False)
class Watched:
    """Somebody who reads, and why they may not any more."""

    caller: Spender
    error: errors.Unauthenticated | None = None


@dataclass(slots=True)
class Revocation:
    """One per process."""

    database: Database
    runner: Runner
    keys: "keys_grpc.KeysInternalServiceAsyncStub"
    auth: "auth_grpc.AuthInternalServiceAsyncStub"
    _watched: set[Watched] = field(default_factory=set)
    _silent: set[str] = field(default_factory=set)
    # The budgets of keys for which something ran when it was looked last.
    key_budgets: dict[UUID, Budget | None] = field(default_factory=dict)

    @contextmanager
    def watching(self, caller: Spender) -> Iterator[Watched]:
        """Looks after a reader meanwhile."""
        watched = Watched(caller)
        self._watched.add(watched)
        try:
            yield watched
        finally:
            self._watched.discard(watched)

    async def look(self) -> None:
        """Ends what runs, waits and is read by those who may not call. Every 0.5 seconds."""
        running, reading = list(self.runner.running.values()), list(self._watched)
        waiting = {Spender(*each) for each in await self._waiting()}
        callers = {run.spender for run in running} | {each.caller for each in reading} | waiting
        ended = await self.ended(callers)
        for run in running:
            if error := ended.error_of(run.spender):
                run.refuse(error)
        for each in reading:
            each.error = ended.error_of(each.caller)
        for caller in waiting:
            if error := ended.error_of(caller):
                await self._cancel_waiting(caller, Failure.of(error))

    async def ended(self, callers: Collection[Spender]) -> Ended:
        """Which of `callers` may not call any more, as far as keys and auth answer."""
        users = {each.user_id for each in callers} - {ANONYMOUS_ID}
        sessions = {each.session_id for each in callers if each.session_id}
        keys = {(each.key_id, each.secret_id) for each in callers if each.key_id}
        of_auth, of_keys = await asyncio.gather(
            self._of_auth(list(users), list(sessions)), self._of_keys(list(keys))
        )
        return Ended(of_auth, of_keys)

    async def _of_auth(self, users: list[UUID], sessions: list[UUID]) -> dict[UUID, Why]:
        ended: dict[UUID, Why] = {}
        for start in range(0, max(len(users), len(sessions)), _MOST_AT_ONCE):
            some = slice(start, start + _MOST_AT_ONCE)
            request = auth_pb.CheckCallersRequest(
                user_ids=map(str, users[some]), session_ids=map(str, sessions[some])
            )
            try:
                answer = await self.auth.CheckCallers(request, timeout=_ANSWERED_WITHIN_S)
            except grpc.aio.AioRpcError as error:
                self._is_silent("auth", error)
                break
            self._silent.discard("auth")
            ended |= {UUID(each.id): (each.reason, each.message) for each in answer.ended}
        return ended

    async def _of_keys(self, keys: list[tuple[UUID, str]]) -> dict[tuple[UUID, str], Why]:
        ended: dict[tuple[UUID, str], Why] = {}
        budgets: dict[UUID, Budget | None] = {}
        for start in range(0, len(keys), _MOST_AT_ONCE):
            some = keys[start : start + _MOST_AT_ONCE]
            request = keys_pb.CheckKeysRequest(
                keys=[keys_pb.KeyInUse(key_id=str(i), secret_id=secret) for i, secret in some]
            )
            try:
                answer = await self.keys.CheckKeys(request, timeout=_ANSWERED_WITHIN_S)
            except grpc.aio.AioRpcError as error:
                self._is_silent("keys", error)
                break
            self._silent.discard("keys")
            for key, state in zip(some, answer.states, strict=True):
                if state.reason:
                    ended[key] = (state.reason, state.message)
                budgets[key[0]] = budget_of(state.limits)
        self.key_budgets = budgets
        return ended

    def _is_silent(self, service: str, error: grpc.aio.AioRpcError) -> None:
        """Says once that a service does not answer."""
        if service not in self._silent:
            self._silent.add(service)
            log.warning("who may call is not known", service=service, error=error.code().name)

    async def _waiting(self) -> set[tuple[UUID, UUID | None]]:
        try:
            return await self.database.run_one(generations.waiting_callers)
        except errors.Unavailable:  # What runs is looked after all the same.
            return set()

    async def _cancel_waiting(self, caller: Spender, failure: Failure) -> None:
        ended_at = self.runner.clock()
        await self.database.run(
            lambda c: generations.cancel_waiting_of(
                c, caller.user_id, caller.key_id, failure, ended_at
            )
        )
