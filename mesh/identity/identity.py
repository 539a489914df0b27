"""Finds out who calls from the credential that a call carries (RFC 6750)."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal
from uuid import UUID

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.keys.v1 import keys_internal_service_pb2 as keys_pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as keys_grpc
from mesh import client, errors
from mesh.access import Caller, Model, Rule
from mesh.calls import openai_headers
from mesh.calls.call import Call
from mesh.config import ServiceSettings
from mesh.identity.leases import Leases
from mesh.identity.principal import ANONYMOUS_ID, Budget, Principal
from mesh.identity.tokens import PublicKeys, TokenVerifier

KEY_PREFIX = "ai_"
# The second is what Azure's clients send.
_KEY_HEADERS = ("x-api-key", "api-key")
# What the contract of Authorize takes.
_LONGEST_KEY = 200
_LONGEST_MODEL = 200
_MISSING = "send Authorization: Bearer <access token or API key>"


class Identity:
    """Identifies callers: tokens by auth's public keys, API keys by asking keys."""

    def __init__(self, auth: grpc.aio.Channel, keys: grpc.aio.Channel) -> None:
        """Takes channels to auth and keys, which it does not close."""
        self._auth = auth_grpc.AuthServiceStub(auth)
        self._keys = keys_grpc.KeysInternalServiceStub(keys)
        self._tokens = TokenVerifier(self._public_keys)
        self._leases = Leases()

    async def identify(self, call: Call, rule: Rule, request: object) -> Principal | None:
        """Who calls, or None where `rule` wants no credential.

        Spends the caller's limit when `rule` names a model. Raises
        Unauthenticated, PermissionDenied, ResourceExhausted.
        """
        if rule.caller in (Caller.OPEN, Caller.PROCESS):
            return None
        if rule.caller is Caller.OPTIONAL and not _is_credited(call):
            address = call.client_address or "inside"
            return await self._authorize(call, rule, request, client_address=address)
        credential = _credential(call)
        if credential.startswith(KEY_PREFIX) and len(credential) > _LONGEST_KEY:
            raise errors.Unauthenticated("INVALID_CREDENTIALS", "no such API key")
        if credential.startswith(KEY_PREFIX):
            if rule.caller is Caller.PERSON:
                raise errors.PermissionDenied(
                    "NOT_PERMITTED", "an API key can't do this; use an access token"
                )
            return await self._authorize(call, rule, request, api_key=credential)
        person = await self._tokens.verify(credential)
        if rule.model is None:
            return person
        told = await self._authorize(call, rule, request, user_id=str(person.user_id))
        return replace(told, role=person.role, session_id=person.session_id)

    async def _authorize(self, call: Call, rule: Rule, request: object, **caller: str) -> Principal:
        """Asks keys about the one `caller`: api_key, user_id or client_address."""
        model = rule.model(request) if rule.model else Model("")

        name = model.id[:_LONGEST_MODEL]

        async def ask(further: int, unused: int) -> keys_pb.AuthorizeResponse:
            asked = keys_pb.AuthorizeRequest(
                model=name,
                model_aliases=model.aliases,
                further_calls=further,
                unused_calls=unused,
                name_secret=True,
                **caller,
            )
            return await self._keys.Authorize(asked, **call.onward(2.0))

        who = (*caller.items(), name)
        answer, left = await self._leases.authorize(who, ask)
        if answer.HasField("rate_limit"):
            states = _limits(answer, left)
            call.headers += _rate_limit_headers(states)
            if rule.openai:
                call.headers += _openai_limit_headers(states)
        if answer.verdict != keys_pb.VERDICT_ALLOWED:
            raise _refusal(answer, name)
        return _principal(answer)

    async def _public_keys(self) -> PublicKeys:
        answer = await self._auth.GetJwks(auth_pb.GetJwksRequest(), timeout=2.0)
        return {
            key.kid: Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key.x + "=="))
            for key in answer.keys
        }


@asynccontextmanager
async def opened(config: ServiceSettings) -> AsyncIterator[Identity]:
    """An Identity with channels of its own to auth and keys, closed at the end."""
    jwks = "khesht.auth.v1.AuthService/GetJwks"
    certificate = config.certificate
    async with (
        client.channel("auth", config.auth_address, certificate, repeatable=(jwks,)) as auth,
        client.channel("keys", config.keys_address, certificate) as keys,
    ):
        yield Identity(auth, keys)


def _is_credited(call: Call) -> bool:
    return any(name in call.metadata for name in ("authorization", *_KEY_HEADERS))


def _credential(call: Call) -> str:
    for name in _KEY_HEADERS:
        key = call.metadata.get(name, "").strip()
        if key:
            return key
    header = call.metadata.get("authorization")
    if not header:
        raise errors.Unauthenticated("MISSING_CREDENTIALS", _MISSING)
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise errors.Unauthenticated("INVALID_CREDENTIALS", _MISSING)
    return credential.strip()


def budget_of(limits: keys_pb.Limits) -> Budget | None:
    """The budget in what keys says of a key, or None."""
    budget = Budget(
        limits.monthly_budget if limits.HasField("monthly_budget") else None,
        limits.total_budget if limits.HasField("total_budget") else None,
        limits.soft_budget if limits.HasField("soft_budget") else None,
    )
    return None if budget == Budget() else budget


def _principal(answer: keys_pb.AuthorizeResponse) -> Principal:
    limits = answer.limits
    limited = limits.HasField("token_limit_per_minute")
    return Principal(
        UUID(answer.user_id) if answer.user_id else ANONYMOUS_ID,
        key_id=UUID(answer.key_id) if answer.key_id else None,
        secret_id=answer.secret_id,
        budget=budget_of(limits),
        token_limit=limits.token_limit_per_minute if limited else None,
        allowed_models=frozenset(limits.allowed_models),
        credential_providers=frozenset(answer.credential_providers),
    )


# Which limit, what it is, and what is left of it.
_Limit = tuple[Literal["requests", "tokens"], keys_pb.RateLimit, int]
_POLICIES = {"requests": "per-minute", "tokens": "tokens-per-minute"}


def _limits(answer: keys_pb.AuthorizeResponse, left: int) -> list[_Limit]:
    """The limits of a caller, who has `left` calls, those of this process too."""
    states: list[_Limit] = [("requests", answer.rate_limit, left)]
    if answer.HasField("token_rate_limit"):
        tokens = answer.token_rate_limit
        states.append(("tokens", tokens, tokens.remaining))
    return states


def _rate_limit_headers(limits: list[_Limit]) -> list[tuple[str, str]]:
    """As in draft-ietf-httpapi-ratelimit-headers-10."""
    policies = (f'"{_POLICIES[kind]}";q={limit.limit};w=60' for kind, limit, _ in limits)
    now = (f'"{_POLICIES[kind]}";r={left};t={limit.reset_seconds}' for kind, limit, left in limits)
    return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(now))]


def _openai_limit_headers(limits: list[_Limit]) -> list[tuple[str, str]]:
    return [
        header
        for kind, limit, left in limits
        for header in openai_headers.of_limit(kind, limit.limit, left, limit.reset_seconds)
    ]


def _refusal(answer: keys_pb.AuthorizeResponse, model: str) -> errors.MeshError:
    match answer.verdict:
        case keys_pb.VERDICT_REVOKED:
            return errors.Unauthenticated("INVALID_CREDENTIALS", "the API key was revoked")
        case keys_pb.VERDICT_EXPIRED:
            return errors.Unauthenticated("INVALID_CREDENTIALS", "the API key has expired")
        case keys_pb.VERDICT_MODEL_NOT_ALLOWED:
            text = f"this key may not call {model}"
            return errors.PermissionDenied("MODEL_NOT_ALLOWED", text, metadata={"model": model})
        case keys_pb.VERDICT_RATE_LIMITED:
            return _spent("RATE_LIMITED", "calls", answer.rate_limit)
        case keys_pb.VERDICT_TOKENS_LIMITED:
            return _spent("TOKENS_RATE_LIMITED", "tokens", answer.token_rate_limit)
        case _:
            return errors.Unauthenticated("INVALID_CREDENTIALS", "no such API key")


def _spent(why: str, what: str, limit: keys_pb.RateLimit) -> errors.ResourceExhausted:
    text = f"{limit.limit} {what} a minute are spent; wait {limit.retry_after_seconds} s"
    return errors.ResourceExhausted(
        why,
        text,
        metadata={"limit": str(limit.limit)},
        retry_after=limit.retry_after_seconds,
    )
