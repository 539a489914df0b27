"""Messages in, one command, messages out."""

from typing import TypeVar
from uuid import UUID

from khesht.auth.v1 import auth_internal_service_pb2 as internal_pb
from khesht.auth.v1 import auth_internal_service_pb2_grpc as internal_pb_grpc
from khesht.auth.v1 import auth_service_pb2 as pb
from khesht.auth.v1 import auth_service_pb2_grpc as pb_grpc
from mesh.calls import call
from mesh.fields import timestamp
from mesh.identity.principal import Principal
from mesh.server import Context
from services.auth import forms
from services.auth.commands.accounts import Accounts
from services.auth.commands.sessions import Sessions
from services.auth.domain.accounts import User
from services.auth.domain.sessions import Client, Session, Tokens
from services.auth.tokens import PublicKey

_LONGEST_USER_AGENT = 200

# Answers that are an account, or tokens.
U = TypeVar("U", pb.RegisterResponse, pb.GetMeResponse)
T = TypeVar("T", pb.LoginResponse, pb.IssueTokenResponse, pb.RefreshTokenResponse)


class AuthServicer(pb_grpc.AuthServiceServicer):
    """Serves `khesht.auth.v1.AuthService`."""

    def __init__(
        self, accounts: Accounts, sessions: Sessions, public_keys: tuple[PublicKey, ...]
    ) -> None:
        """Takes the commands, and the keys that verify access tokens."""
        self._accounts = accounts
        self._sessions = sessions
        self._jwks = pb.GetJwksResponse(keys=map(_key_to_pb, public_keys))

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        """Creates an account."""
        username = request.username if request.HasField("username") else None
        user = await self._accounts.register(
            username, request.email, request.password, _client().address
        )
        return _user(pb.RegisterResponse, user)

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        """Starts a session."""
        name = request.username or request.email
        tokens = await self._sessions.login(name, request.password, _client())
        return _tokens(pb.LoginResponse, tokens)

    async def IssueToken(
        self, request: pb.IssueTokenRequest, context: Context
    ) -> pb.IssueTokenResponse:
        """Starts or refreshes a session by a form."""
        match forms.read(request.form.content_type, request.form.data):
            case forms.PasswordGrant(username, password):
                tokens = await self._sessions.login(username, password, _client())
            case forms.RefreshGrant(refresh_token):
                tokens = await self._sessions.refresh(refresh_token)
        return _tokens(pb.IssueTokenResponse, tokens)

    async def RefreshToken(
        self, request: pb.RefreshTokenRequest, context: Context
    ) -> pb.RefreshTokenResponse:
        """Trades a refresh token for new tokens."""
        tokens = await self._sessions.refresh(request.refresh_token)
        return _tokens(pb.RefreshTokenResponse, tokens)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        """Ends the session that calls."""
        await self._sessions.logout(_caller())
        return pb.LogoutResponse()

    async def GetMe(self, request: pb.GetMeRequest, context: Context) -> pb.GetMeResponse:
        """Gets the caller's account."""
        return _user(pb.GetMeResponse, await self._accounts.get(_caller()))

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Context
    ) -> pb.ChangePasswordResponse:
        """Changes the caller's password and ends the other sessions."""
        await self._accounts.change_password(
            _caller(), request.current_password, request.new_password
        )
        return pb.ChangePasswordResponse()

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """Lists the caller's live sessions."""
        caller = _caller()
        page, token = await self._sessions.list(caller, request.page_size, request.page_token)
        listed = [_session_to_pb(each, is_current=each.id == caller.session_id) for each in page]
        return pb.ListSessionsResponse(sessions=listed, next_page_token=token)

    async def RevokeSession(
        self, request: pb.RevokeSessionRequest, context: Context
    ) -> pb.RevokeSessionResponse:
        """Ends one of the caller's sessions."""
        await self._sessions.revoke(_caller(), UUID(request.session_id))
        return pb.RevokeSessionResponse()

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.GetJwksResponse:
        """Gets the public keys of the access tokens."""
        return self._jwks


class AuthInternalServicer(internal_pb_grpc.AuthInternalServiceServicer):
    """Serves `khesht.auth.v1.AuthInternalService`, to the other services."""

    def __init__(self, sessions: Sessions) -> None:
        """Takes the commands."""
        self._sessions = sessions

    async def CheckCallers(
        self, request: internal_pb.CheckCallersRequest, context: Context
    ) -> internal_pb.CheckCallersResponse:
        """Says which accounts and sessions have ended."""
        ended = await self._sessions.ended(
            [UUID(each) for each in request.user_ids],
            [UUID(each) for each in request.session_ids],
        )
        return internal_pb.CheckCallersResponse(
            ended=[
                internal_pb.EndedCaller(id=str(i), reason=error.reason, message=error.message)
                for i, error in ended.items()
            ]
        )


def _caller() -> Principal:
    return call.current().caller


def _client() -> Client:
    now = call.current()
    user_agent = now.metadata.get("user-agent", "")
    return Client(now.client_address, user_agent[:_LONGEST_USER_AGENT])


def _user(response: type[U], user: User) -> U:
    return response(
        id=str(user.id),
        username=user.username,
        email=user.email,
        role=user.role,
        created_at=timestamp(user.created_at),
    )


def _tokens(response: type[T], tokens: Tokens) -> T:
    return response(
        access_token=tokens.access_token,
        token_type="bearer",  # noqa: S106 - a kind, not a secret
        expires_in=tokens.expires_in,
        refresh_token=tokens.refresh_token,
    )


def _session_to_pb(session: Session, *, is_current: bool) -> pb.Session:
    return pb.Session(
        id=str(session.id),
        created_at=timestamp(session.created_at),
        last_used_at=timestamp(session.last_used_at),
        expires_at=timestamp(session.expires_at),
        user_agent=session.user_agent,
        is_current=is_current,
    )


def _key_to_pb(key: PublicKey) -> pb.Jwk:
    return pb.Jwk(kty="OKP", crv="Ed25519", use="sig", alg="EdDSA", kid=key.id, x=key.x)
