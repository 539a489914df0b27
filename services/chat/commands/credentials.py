"""Keys of providers that callers have stored, fetched for one call each."""

from dataclasses import dataclass
from uuid import UUID

import grpc

from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from mesh import errors

_ANSWERED_WITHIN = 3.0


@dataclass(slots=True)
class Credentials:
    """What accounts have stored with keys."""

    keys: "pb_grpc.KeysInternalServiceAsyncStub"

    async def of(self, user_id: UUID, provider: str) -> str:
        """The account's key of `provider`. Raises FailedPrecondition when it is gone, Unavailable."""
        request = pb.GetProviderCredentialRequest(user_id=str(user_id), provider=provider)
        try:
            answer = await self.keys.GetProviderCredential(request, timeout=_ANSWERED_WITHIN)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                raise errors.FailedPrecondition(
                    "PROVIDER_CREDENTIAL_GONE",
                    f"the key of {provider} that is stored for this account can't be read; "
                    "store it again",
                    metadata={"provider": provider},
                ) from None
            raise errors.Unavailable(
                "UNAVAILABLE", "stored keys of providers can't be read now", retry_after=1
            ) from None
        return answer.api_key
