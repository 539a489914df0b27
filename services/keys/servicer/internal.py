"""Serves the other services."""

from collections.abc import Collection
from uuid import UUID

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.server import Context
from services.keys.authorize import Authorizer
from services.keys.commands.credentials import Credentials
from services.keys.commands.keys import Keys
from services.keys.domain.decisions import Ahead, Decision, RateLimit, Spent
from services.keys.domain.keys import Budget, Key, Verdict
from services.keys.meter import Meter

_VERDICTS = {
    verdict: pb.Verdict.Value(f"VERDICT_{verdict.name}")  # As in the contract.
    for verdict in Verdict
}


class KeysInternalServicer(pb_grpc.KeysInternalServiceServicer):
    """Serves `khesht.keys.v1.KeysInternalService`."""

    def __init__(
        self, authorizer: Authorizer, keys: Keys, meter: Meter, credentials: Credentials
    ) -> None:
        """Takes what decides, what counts, and the commands."""
        self._authorizer = authorizer
        self._keys = keys
        self._meter = meter
        self._credentials = credentials

    async def Authorize(
        self, request: pb.AuthorizeRequest, context: Context
    ) -> pb.AuthorizeResponse:
        """Says whether a call may be made, and spends its caller's limit if so."""
        model = (request.model, *request.model_aliases) if request.model else ()
        ahead = Ahead(request.further_calls, request.unused_calls)
        if request.HasField("api_key"):
            decision = await self._authorizer.key(request.api_key, model, ahead)
            answer = _to_pb(decision)
            if request.name_secret:
                answer.secret_id = decision.secret_id
            return answer
        if request.HasField("client_address"):
            return _to_pb(await self._authorizer.address(request.client_address, model, ahead))
        return _to_pb(await self._authorizer.account(UUID(request.user_id), model, ahead))

    async def CheckKeys(
        self, request: pb.CheckKeysRequest, context: Context
    ) -> pb.CheckKeysResponse:
        """Says what became of keys."""
        states = await self._keys.states([(UUID(k.key_id), k.secret_id) for k in request.keys])
        return pb.CheckKeysResponse(states=[_state(error, key) for error, key in states])

    async def SpendTokens(
        self, request: pb.SpendTokensRequest, context: Context
    ) -> pb.SpendTokensResponse:
        """Takes tokens that were used."""
        await self._meter.take(
            Spent(UUID(each.key_id or each.user_id), bool(each.key_id), each.tokens)
            for each in request.spent
        )
        return pb.SpendTokensResponse()

    async def GetProviderCredential(
        self, request: pb.GetProviderCredentialRequest, context: Context
    ) -> pb.GetProviderCredentialResponse:
        """Gets the provider's key that an account has stored."""
        api_key = await self._credentials.reveal(UUID(request.user_id), request.provider)
        return pb.GetProviderCredentialResponse(api_key=api_key)


def _to_pb(decision: Decision) -> pb.AuthorizeResponse:
    answer = pb.AuthorizeResponse(
        verdict=_VERDICTS[decision.verdict],
        further_calls=decision.further_calls,
        rate_limit=_limit(decision.rate_limit),
        token_rate_limit=_limit(decision.token_rate_limit),
        credential_providers=decision.credential_providers,
    )
    if decision.key_id is not None:
        answer.key_id = str(decision.key_id)
    if decision.user_id is not None:
        answer.user_id = str(decision.user_id)
    limits = _limits(decision.token_limit, decision.allowed_models, decision.budget)
    if limits is not None:
        answer.limits.CopyFrom(limits)
    return answer


def _state(error: errors.Unauthenticated | None, key: Key | None) -> pb.KeyState:
    state = pb.KeyState()
    if error is not None:
        state.reason, state.message = error.reason, error.message
    elif key is not None:
        limits = _limits(key.token_limit_per_minute, key.allowed_models, key.budget)
        state.MergeFrom(pb.KeyState(limits=limits))
    return state


def _limits(
    token_limit: int | None, models: Collection[str], budget: Budget | None
) -> pb.Limits | None:
    if token_limit is None and not models and budget is None:
        return None
    limits = pb.Limits(token_limit_per_minute=token_limit, allowed_models=models)
    if budget is not None:
        limits.MergeFrom(
            pb.Limits(
                monthly_budget=budget.monthly,
                total_budget=budget.total,
                soft_budget=budget.soft,
            )
        )
    return limits


def _limit(state: RateLimit | None) -> pb.RateLimit | None:
    if state is None:
        return None
    return pb.RateLimit(
        limit=state.limit,
        remaining=state.remaining,
        retry_after_seconds=state.retry_after,
        reset_seconds=state.reset,
    )
