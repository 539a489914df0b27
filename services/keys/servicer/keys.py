"""Serves those who manage keys."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from khesht.keys.v1 import keys_service_pb2 as pb
from khesht.keys.v1 import keys_service_pb2_grpc as pb_grpc
from mesh import errors
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.keys.commands.keys import Keys
from services.keys.domain.keys import Draft, Key, Verdict, nano_usd, usd

# Fields that can be changed, and what they are called here.
_FIELDS = {
    "name": "name",
    "rate_limit_per_minute": "rate_limit_per_minute",
    "allowed_models": "allowed_models",
    "expires_at": "expires_at",
    "token_limit_per_minute": "token_limit_per_minute",
    "monthly_budget_usd": "monthly_budget",
    "total_budget_usd": "total_budget",
    "soft_budget_usd": "soft_budget",
}
_GRACE = timedelta(days=1)

_Sum = Literal["monthly_budget_usd", "total_budget_usd", "soft_budget_usd"]

# Messages that are a key, with or without its secret.
M = TypeVar("M", pb.ApiKey, pb.GetApiKeyResponse, pb.UpdateApiKeyResponse, pb.RotateApiKeyResponse)


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
            token_limit_per_minute=key.token_limit_per_minute,
            monthly_budget_usd=_usd(key.monthly_budget),
            total_budget_usd=_usd(key.total_budget),
            soft_budget_usd=_usd(key.soft_budget),
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

    async def RotateApiKey(
        self, request: pb.RotateApiKeyRequest, context: Context
    ) -> pb.RotateApiKeyResponse:
        """Gives one of the caller's keys a new secret; this answer alone holds it."""
        told = request.HasField("grace_period_seconds")
        grace = timedelta(seconds=request.grace_period_seconds) if told else _GRACE
        end = _time(request.expires_at) if request.HasField("expires_at") else None
        key, secret = await self._keys.rotate(_owner(), UUID(request.key_id), grace, end)
        answer = _to_pb(pb.RotateApiKeyResponse, key)
        answer.key = secret
        return answer


def _owner() -> UUID:
    return call.current().caller.user_id


def _draft(request: pb.CreateApiKeyRequest | pb.UpdateApiKeyRequest) -> Draft:
    limited = request.HasField("rate_limit_per_minute")
    counted = request.HasField("token_limit_per_minute")
    return Draft(
        name=request.name,
        rate_limit_per_minute=request.rate_limit_per_minute if limited else None,
        allowed_models=tuple(request.allowed_models),
        expires_at=_time(request.expires_at) if request.HasField("expires_at") else None,
        token_limit_per_minute=request.token_limit_per_minute if counted else None,
        monthly_budget=_sum(request, "monthly_budget_usd"),
        total_budget=_sum(request, "total_budget_usd"),
        soft_budget=_sum(request, "soft_budget_usd"),
    )


def _sum(request: pb.CreateApiKeyRequest | pb.UpdateApiKeyRequest, field: _Sum) -> int | None:
    """An optional sum of dollars in nano-USD."""
    return nano_usd(getattr(request, field)) if request.HasField(field) else None


def _usd(sum_: int | None) -> float | None:
    return None if sum_ is None else usd(sum_)


def _changed_fields(request: pb.UpdateApiKeyRequest) -> Collection[str]:
    if not request.HasField("update_mask"):
        given = {field.name for field, _ in request.ListFields()}
        return {_FIELDS[field] for field in given.intersection(_FIELDS)}
    fields = {_FIELDS[path] for path in request.update_mask.paths}
    if "name" in fields and not request.HasField("name"):
        raise errors.invalid("name", "is in update_mask, and a key can't be without one")
    return fields


def _time(told: Timestamp) -> datetime:
    try:
        return told.ToDatetime(UTC)
    except ValueError:
        raise errors.invalid("expires_at", "must be a time before the year 10000") from None


def _to_pb(message: type[M], key: Key) -> M:
    previous = key.previous_expires_at
    made = message(
        id=str(key.id),
        name=key.name,
        key_prefix=key.key_prefix,
        is_active=key.standing(datetime.now(UTC)) is Verdict.ALLOWED,
        rate_limit_per_minute=key.rate_limit_per_minute,
        allowed_models=key.allowed_models,
        expires_at=timestamp(key.expires_at) if key.expires_at else None,
        created_at=timestamp(key.created_at),
        last_used_at=timestamp(key.last_used_at) if key.last_used_at else None,
        token_limit_per_minute=key.token_limit_per_minute,
        monthly_budget_usd=_usd(key.monthly_budget),
        total_budget_usd=_usd(key.total_budget),
        soft_budget_usd=_usd(key.soft_budget),
        previous_expires_at=timestamp(previous) if previous else None,
    )
    if key.revoked_at and not isinstance(made, pb.RotateApiKeyResponse):
        made.revoked_at.FromDatetime(key.revoked_at)
    return made
