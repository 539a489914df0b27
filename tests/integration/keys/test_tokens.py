"""Limits of tokens a minute: taken when they are known, down into debt."""

from dataclasses import replace
from uuid import uuid4

import grpc
import pytest

from khesht.chat.v1 import chat_service_pb2 as chat_pb
from khesht.chat.v1 import chat_service_pb2_grpc as chat_grpc
from khesht.keys.v1 import keys_internal_service_pb2 as pb
from khesht.keys.v1 import keys_internal_service_pb2_grpc as pb_grpc
from khesht.keys.v1 import keys_service_pb2 as keys_pb
from mesh import status
from tests import harness
from tests.integration.keys.conftest import asking

ALLOWED, LIMITED = pb.VERDICT_ALLOWED, pb.VERDICT_TOKENS_LIMITED


async def spending(mesh):
    """Tells the keys of `mesh` of tokens, as chat."""
    stub = pb_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer="chat"))

    async def spend(*spent):
        request = pb.SpendTokensRequest(spent=[pb.SpentTokens(**each) for each in spent])
        await stub.SpendTokens(request, timeout=3)

    return spend


@pytest.fixture
async def spend(mesh):
    return await spending(mesh)


async def test_calls_are_allowed_until_the_tokens_are_spent_and_then_out_of_debt(
    authorize, create, spend
):
    made = await create(token_limit_per_minute=600)
    whole = await authorize(made.key, model="echo")
    await spend({"key_id": made.id, "tokens": 500}, {"key_id": made.id, "tokens": 99})
    one_left = await authorize(made.key, model="echo")
    await spend({"key_id": made.id, "tokens": 301})
    refused = await authorize(made.key, model="echo")

    assert [each.verdict for each in (whole, one_left, refused)] == [ALLOWED, ALLOWED, LIMITED]
    assert whole.token_rate_limit == pb.RateLimit(limit=600, remaining=600)
    assert 1 <= one_left.token_rate_limit.remaining < 60
    # 300 more than all of it: half a minute's worth, less what a slow machine waited.
    assert refused.token_rate_limit.remaining == 0
    assert 20 <= refused.token_rate_limit.retry_after_seconds <= 31
    assert 80 <= refused.token_rate_limit.reset_seconds <= 90
    # A refusal for tokens spends no call.
    assert refused.rate_limit.remaining >= one_left.rate_limit.remaining


async def test_a_key_with_a_limit_of_tokens_gets_no_calls_ahead(authorize, create):
    made, plain = await create(token_limit_per_minute=600), await create()

    ahead = [await authorize(key, model="echo", further_calls=5) for key in (made.key, plain.key)]

    assert [each.further_calls for each in ahead] == [0, 5]


async def test_many_keys_are_told_of_at_once_and_others_are_passed_over(
    authorize, create, spend, person
):
    made = [await create(token_limit_per_minute=10) for _ in range(3)]
    plain = await create()
    others = ({"key_id": str(uuid4()), "tokens": 5}, {"user_id": person.id, "tokens": 5})
    tokens = [{"key_id": key.id, "tokens": 20} for key in (*made[:2], plain)]
    await spend(*tokens, *others)

    verdicts = [(await authorize(key.key, model="echo")).verdict for key in (*made, plain)]
    assert verdicts == [LIMITED, LIMITED, ALLOWED, ALLOWED]
    assert (await authorize(user_id=person.id, model="echo")).verdict == ALLOWED


async def test_more_tokens_or_no_limit_of_them_help_at_once(keys, authorize, create, spend, person):
    made = await create(token_limit_per_minute=10)
    await spend({"key_id": made.id, "tokens": 20})
    refused = await authorize(made.key, model="echo")
    request = keys_pb.UpdateApiKeyRequest(key_id=made.id)
    request.update_mask.paths.append("token_limit_per_minute")
    await keys.UpdateApiKey(request, metadata=person.by_token, timeout=5)
    free = await authorize(made.key, model="echo")

    assert (refused.verdict, free.verdict) == (LIMITED, ALLOWED)
    assert not free.HasField("token_rate_limit")


async def test_settings_that_others_enforce_are_handed_out(authorize, create):
    limited = {
        "monthly_budget_usd": 1.5,
        "total_budget_usd": 0,
        "token_limit_per_minute": 9,
        "allowed_models": ["fast", "echo"],
    }
    made, plain = await create(**limited), await create()

    limits = (await authorize(made.key)).limits
    assert limits == pb.Limits(
        monthly_budget=1_500_000_000,
        total_budget=0,
        token_limit_per_minute=9,
        allowed_models=["fast", "echo"],
    )
    assert limits.HasField("total_budget")
    assert not (await authorize(plain.key, model="echo")).HasField("limits")


async def test_accounts_by_access_token_have_the_installations_limit(mesh, person):
    own = replace(mesh, settings={**mesh.settings, "TOKEN_LIMIT_PER_MINUTE": "10"})
    async with harness.replica(own, "keys") as other:
        authorize, spend = await asking(other), await spending(other)
        before = await authorize(user_id=person.id, model="echo")
        await spend({"user_id": person.id, "tokens": 10})
        after = await authorize(user_id=person.id, model="echo")
        anonymous = await authorize(client_address="192.0.2.1", model="echo")

    assert before.limits == pb.Limits(token_limit_per_minute=10)
    verdicts = [each.verdict for each in (before, after, anonymous)]
    assert verdicts == [ALLOWED, LIMITED, ALLOWED]


async def test_a_caller_is_told_of_both_limits_and_when_to_come_again(mesh, create, spend):
    made = await create(token_limit_per_minute=600, rate_limit_per_minute=60)
    chat = chat_grpc.ChatServiceStub(await mesh.channel("chat"))
    request = chat_pb.CreateReplyRequest(message="Hello", model="echo", store=False)
    calling = chat.CreateReply(request, metadata=harness.bearer(made.key), timeout=5)
    told = dict(await calling.initial_metadata())
    await calling
    await spend({"key_id": made.id, "tokens": 1200})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await chat.CreateReply(request, metadata=harness.bearer(made.key), timeout=5)

    assert told["ratelimit-policy"] == '"per-minute";q=60;w=60, "tokens-per-minute";q=600;w=60'
    assert told["ratelimit"].startswith('"per-minute";r=59;t=1, "tokens-per-minute";r=')
    assert status.reason_of(refused.value) == "TOKENS_RATE_LIMITED"
    assert refused.value.details().startswith("600 tokens a minute are spent; wait ")
    trailers = dict(refused.value.trailing_metadata())
    assert 50 <= int(trailers["retry-after"]) <= 61


@pytest.mark.parametrize("peer", ["edge", "usage", "items"])
async def test_only_those_who_call_models_may_spend(mesh, peer):
    stub = pb_grpc.KeysInternalServiceStub(await mesh.channel("keys", peer=peer))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.SpendTokens(pb.SpendTokensRequest(), timeout=5)

    assert status.reason_of(refused.value) == "PEER_NOT_ALLOWED"
