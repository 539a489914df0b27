"""Messages in, one command, messages out."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from khesht.keys.v1 import keys_internal_service_pb2 as internal_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as internal_pb_grpc
from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.keys.authorize import Authorizer
from services.keys.commands import Keys
from services.keys.domain import Ahead, Draft, Key, Verdict

_FIELDS = ("name", "rate_limit_per_minute", "allowed_models", "expires_at")
_VERDICTS = {
    verdict: internal_pb.Verdict.Value(f"VERDICT_{verdict.name}")  # As in the contract.
    for verdict in Verdict
}

# Messages that are a key without its secret.
M = TypeVar("M", pb.ApiKey, pb.GetApiKeyResponse, pb.UpdateApiKeyResponse)


class KeysServicer(pb_grpc.KeysServiceServicer):
    """Serves `khesht.keys.v1.KeysService`."""

    def __init__(self, keys: Keys) -> None:
        """Takes the commands."""
        self._keys = keys

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        """Creates a key for the caller; this answer alone holds its secret."""
        key, secret = await self._keys.create(_owner(), _draft(request))
        return pb.CreateApiKeyResponse(
            id=str(key.id),
            name=key.name,
            key=secret,
            key_prefix=key.key_prefix,
            is_active=True,
            rate_limit_per_minute=key.rate_limit_per_minute,
            allowed_models=key.allowed_models,
            expires_at=timestamp(key.expires_at) if key.expires_at else None,
            created_at=timestamp(key.created_at),
        )

    async def GetApiKey(
        self, request: pb.GetApiKeyRequest, context: Context
    ) -> pb.GetApiKeyResponse:
        """Gets one of the caller's keys."""
        key = await self._keys.get(_owner(), UUID(request.key_id))
        return _to_pb(pb.GetApiKeyResponse, key)

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Context
    ) -> pb.ListApiKeysResponse:
        """Lists the caller's keys."""
        page, token = await self._keys.list(_owner(), request.page_size, request.page_token)
        return pb.ListApiKeysResponse(
            api_keys=[_to_pb(pb.ApiKey, key) for key in page], next_page_token=token
        )

    async def UpdateApiKey(
        self, request: pb.UpdateApiKeyRequest, context: Context
    ) -> pb.UpdateApiKeyResponse:
        """Changes one of the caller's keys."""
        key = await self._keys.update(
            _owner(), UUID(request.key_id), _draft(request), _changed_fields(request)
        )
        return _to_pb(pb.UpdateApiKeyResponse, key)

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Context
    ) -> pb.RevokeApiKeyResponse:
        """Revokes one of the caller's keys."""
        await self._keys.revoke(_owner(), UUID(request.key_id))
        return pb.RevokeApiKeyResponse()


class KeysInternalServicer(internal_pb_grpc.KeysInternalServiceServicer):
    """Serves `khesht.keys.v1.KeysInternalService`."""

    def __init__(self, authorizer: Authorizer) -> None:
        """Takes what decides."""
        self._authorizer = authorizer

    async def Authorize(
        self, request: internal_pb.AuthorizeRequest, context: Context
    ) -> internal_pb.AuthorizeResponse:
        """Says whether a call may be made, and spends its caller's limit if so."""
        model = (request.model, *request.model_aliases) if request.model else ()
        ahead = Ahead(request.further_calls, request.unused_calls)
        if request.HasField("api_key"):
            decision = await self._authorizer.key(request.api_key, model, ahead)
        elif request.HasField("client_address"):
            decision = await self._authorizer.address(request.client_address, model, ahead)
        else:
            decision = await self._authorizer.account(UUID(request.user_id), model, ahead)
        answer = internal_pb.AuthorizeResponse(
            verdict=_VERDICTS[decision.verdict], further_calls=decision.further_calls
        )
        if decision.key_id is not None:
            answer.key_id = str(decision.key_id)
        if decision.user_id is not None:
            answer.user_id = str(decision.user_id)
        if (state := decision.rate_limit) is not None:
            limit = answer.rate_limit
            limit.limit, limit.remaining = state.limit, state.remaining
            limit.retry_after_seconds, limit.reset_seconds = state.retry_after, state.reset
        return answer


def _owner() -> UUID:
    return call.current().caller.user_id


def _draft(request: pb.CreateApiKeyRequest | pb.UpdateApiKeyRequest) -> Draft:
    limited = request.HasField("rate_limit_per_minute")
    return Draft(
        name=request.name,
        rate_limit_per_minute=request.rate_limit_per_minute if limited else None,
        allowed_models=tuple(request.allowed_models),
        expires_at=_time(request.expires_at) if request.HasField("expires_at") else None,
    )


def _changed_fields(request: pb.UpdateApiKeyRequest) -> Collection[str]:
    if not request.HasField("update_mask"):
        given = {field.name for field, _ in request.ListFields()}
        return given.intersection(_FIELDS)
    fields = set(request.update_mask.paths)
    if "name" in fields and not request.HasField("name"):
        raise errors.invalid("name", "is in update_mask, and a key can't be without one")
    return fields


def _time(told: Timestamp) -> datetime:
    try:
        return told.ToDatetime(UTC)
    except ValueError:
        raise errors.invalid("expires_at", "must be a time before the year 10000") from None


def _to_pb(message: type[M], key: Key) -> M:
    return message(
        id=str(key.id),
        name=key.name,
        key_prefix=key.key_prefix,
        is_active=key.standing(datetime.now(UTC)) is Verdict.ALLOWED,
        rate_limit_per_minute=key.rate_limit_per_minute,
        allowed_models=key.allowed_models,
        expires_at=timestamp(key.expires_at) if key.expires_at else None,
        created_at=timestamp(key.created_at),
        last_used_at=timestamp(key.last_used_at) if key.last_used_at else None,
        revoked_at=timestamp(key.revoked_at) if key.revoked_at else None,
    )
