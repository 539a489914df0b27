"""Serves those who store credentials of providers."""

from typing import TypeVar

from khesht.keys.v1 import provider_credentials_service_pb2 as pb
from khesht.keys.v1 import provider_credentials_service_pb2_grpc as pb_grpc
from mesh.calls import call
from mesh.fields import timestamp
from mesh.server import Context
from services.keys.commands.credentials import Credentials
from services.keys.domain.credentials import Credential

# Messages that are a credential without what it holds.
M = TypeVar("M", pb.ProviderCredential, pb.StoreProviderCredentialResponse)


class ProviderCredentialsServicer(pb_grpc.ProviderCredentialsServiceServicer):
    """Serves `khesht.keys.v1.ProviderCredentialsService`."""

    def __init__(self, credentials: Credentials) -> None:
        """Takes the commands."""
        self._credentials = credentials

    async def StoreProviderCredential(
        self, request: pb.StoreProviderCredentialRequest, context: Context
    ) -> pb.StoreProviderCredentialResponse:
        """Stores the caller's key of a provider."""
        owner_id = call.current().caller.user_id
        stored = await self._credentials.store(owner_id, request.provider, request.api_key)
        return _to_pb(pb.StoreProviderCredentialResponse, stored)

    async def ListProviderCredentials(
        self, request: pb.ListProviderCredentialsRequest, context: Context
    ) -> pb.ListProviderCredentialsResponse:
        """Lists the caller's credentials."""
        owner_id = call.current().caller.user_id
        page, token = await self._credentials.list(owner_id, request.page_size, request.page_token)
        return pb.ListProviderCredentialsResponse(
            provider_credentials=[_to_pb(pb.ProviderCredential, each) for each in page],
            next_page_token=token,
        )

    async def DeleteProviderCredential(
        self, request: pb.DeleteProviderCredentialRequest, context: Context
    ) -> pb.DeleteProviderCredentialResponse:
        """Deletes a credential of the caller."""
        await self._credentials.delete(call.current().caller.user_id, request.provider)
        return pb.DeleteProviderCredentialResponse()


def _to_pb(message: type[M], credential: Credential) -> M:
    return message(
        id=str(credential.id),
        provider=credential.provider,
        last_four=credential.last_four,
        version=credential.version,
        created_at=timestamp(credential.created_at),
    )
