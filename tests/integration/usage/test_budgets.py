"""Budgets and holds as other processes reach them."""

from datetime import UTC, datetime
from uuid import uuid4

import grpc
import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from khesht.auth.v1 import auth_service_pb2 as auth_pb
from khesht.auth.v1 import auth_service_pb2_grpc as auth_grpc
from khesht.usage.v1 import usage_internal_service_pb2 as internal_pb
from khesht.usage.v1 import usage_internal_service_pb2_grpc as internal_grpc
from khesht.usage.v1 import usage_service_pb2 as pb
from mesh import status
from services.usage.domain.ledger import month_end, month_of
from tests import harness
from tests.integration.usage.conftest import consumption
from tests.integration.usage.ledger import balance_of, wrong
from tests.support import eventually

CENT = 10**7
HELD, REFUSED = internal_pb.HOLD_VERDICT_HELD, internal_pb.HOLD_VERDICT_REFUSED


@pytest.fixture(scope="module")
async def admin(mesh, admin_dsn):
    """The metadata of an admin's calls."""
    auth = auth_grpc.AuthServiceStub(await mesh.channel("auth"))
    email, password = f"{uuid4().hex}@example.com", "password123"
    user = await auth.Register(auth_pb.RegisterRequest(email=email, password=password), timeout=5)
    with psycopg.connect(admin_dsn) as connection:
        connection.execute("UPDATE auth.users SET role = 'admin' WHERE id = %s", [user.id])
    login = auth_pb.LoginRequest(email=email, password=password)
    return harness.bearer((await auth.Login(login, timeout=5)).access_token)


@pytest.fixture
def set_budget(usage, admin):
    async def set_budget(user_id, **limits):
        request = pb.ReplaceUserBudgetRequest(user_id=user_id, **limits)
        return await usage.ReplaceUserBudget(request, metadata=admin, timeout=5)

    return set_budget


@pytest.fixture(scope="session")
async def chat(mesh):
    return internal_grpc.UsageInternalServiceStub(await mesh.channel("usage", peer="chat"))


@pytest.fixture(scope="session")
async def operator(mesh):
    return internal_grpc.UsageInternalServiceStub(await mesh.channel("usage", peer="operator"))


def hold(user_id, amount=CENT, **more):
    now = Timestamp()
    now.GetCurrentTime()
    values = {"generation_id": str(uuid4()), "created_at": now, **more}
    return internal_pb.Hold(user_id=user_id, amount=amount, **values)


async def held(chat, *holds):
    answer = await chat.HoldBudget(internal_pb.HoldBudgetRequest(holds=holds), timeout=5)
    return list(answer.outcomes)


async def test_a_budget_is_told_as_it_was_set_and_what_counts_against_it(
    usage, chat, person, admin, set_budget, record
):
    assert await usage.GetBudget(
        pb.GetBudgetRequest(), metadata=person.by_token, timeout=5
    ) == pb.GetBudgetResponse(resets_at=month_end(month_of(datetime.now(UTC))))

    await set_budget(person.id, monthly_budget_usd=0.1, total_budget_usd=10, soft_budget_usd=0.05)
    await record(consumption(person.id))  # It costs 22,200 nano-USD.
    await held(chat, hold(person.id))

    told = {
        "monthly_budget_usd": 0.1,
        "total_budget_usd": 10,
        "soft_budget_usd": 0.05,
        "spent_usd": 0.0000222,
        "held_usd": 0.01,
        "resets_at": month_end(month_of(datetime.now(UTC))),
    }
    for caller in (person.by_token, person.by_key):
        own = await usage.GetBudget(pb.GetBudgetRequest(), metadata=caller, timeout=5)
        assert own == pb.GetBudgetResponse(**told)
    request = pb.GetUserBudgetRequest(user_id=person.id)
    of_user = await usage.GetUserBudget(request, metadata=admin, timeout=5)
    assert of_user == pb.GetUserBudgetResponse(**told)


async def test_where_only_a_total_is_set_all_time_counts(person, set_budget, record):
    long_ago = Timestamp(seconds=0)
    await record(consumption(person.id, created_at=long_ago))

    monthly = await set_budget(person.id, monthly_budget_usd=1)
    total = await set_budget(person.id, total_budget_usd=1)

    assert (monthly.spent_usd, monthly.HasField("resets_at")) == (0, True)
    assert (total.spent_usd, total.HasField("resets_at")) == (0.0000222, False)


async def test_a_limit_that_is_left_out_is_lifted_and_zero_is_one(chat, person, set_budget):
    await set_budget(person.id, monthly_budget_usd=0, soft_budget_usd=3)
    (refused,) = await held(chat, hold(person.id))
    answer = await set_budget(person.id, total_budget_usd=5)
    (fits,) = await held(chat, hold(person.id))

    assert (refused.verdict, fits.verdict) == (REFUSED, HELD)
    assert not answer.HasField("monthly_budget_usd")
    assert not answer.HasField("soft_budget_usd")


@pytest.mark.parametrize("usd", [0.1, 0.29, 19.99, 1234567.89, 1e9])
async def test_dollars_are_kept_to_the_nano_as_they_were_written(
    admin_dsn, person, set_budget, usd
):
    answer = await set_budget(person.id, monthly_budget_usd=usd)

    with psycopg.connect(admin_dsn) as connection:
        query = "SELECT monthly FROM usage.budgets WHERE user_id = %s"
        (nanos,) = connection.execute(query, [person.id]).fetchone()
    assert nanos == round(usd * 100) * CENT
    assert answer.monthly_budget_usd == usd


@pytest.mark.parametrize("usd", [-0.01, 1e9 + 1, float("nan"), float("inf")])
async def test_a_budget_that_is_no_sum_of_money_is_refused(person, set_budget, usd):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await set_budget(person.id, soft_budget_usd=usd)

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("soft_budget_usd: ")


@pytest.mark.parametrize("method", ["GetUserBudget", "ReplaceUserBudget"])
@pytest.mark.parametrize("by", ["by_token", "by_key"])
async def test_only_an_admin_sees_and_sets_budgets_of_accounts(usage, person, method, by):
    request = getattr(pb, f"{method}Request")(user_id=person.id)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(usage, method)(request, metadata=getattr(person, by), timeout=5)

    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert status.reason_of(refused.value) == "NOT_PERMITTED"


async def test_a_refusal_says_what_it_is_over_and_until_when(chat, person, set_budget, record):
    await record(consumption(person.id, key_id=person.key_id))
    budget = internal_pb.Budget(monthly=2 * CENT, soft=20_000)

    outcomes = await held(
        chat,
        hold(person.id, key_id=person.key_id, key_budget=budget),
        hold(person.id, key_id=person.key_id, key_budget=budget),
        hold(person.id),
    )

    assert outcomes == [
        internal_pb.HoldOutcome(verdict=HELD, soft_exceeded=True, amount=CENT),
        internal_pb.HoldOutcome(
            verdict=REFUSED,
            soft_exceeded=True,
            limit=internal_pb.LIMIT_KEY_MONTHLY,
            resets_at=month_end(month_of(datetime.now(UTC))),
            allowed=2 * CENT,
            spent=22_200,
            reserved=CENT,
        ),
        internal_pb.HoldOutcome(verdict=internal_pb.HOLD_VERDICT_NOT_NEEDED),
    ]


async def test_what_a_dead_process_held_comes_back(admin_dsn, chat, person, set_budget):
    await set_budget(person.id, monthly_budget_usd=0.02)
    living, dead = hold(person.id), hold(person.id)
    await held(chat, living, dead)
    with psycopg.connect(admin_dsn) as connection:
        query = "UPDATE usage.holds SET expires_at = now() WHERE generation_id = ANY(%s)"
        connection.execute(query, [[living.generation_id, dead.generation_id]])
        # As the living does before anybody can reap; nobody else sees it expired.
        query = query.replace("now()", "now() + interval '60 seconds'")
        connection.execute(query, [[living.generation_id]])

    # Usage looks for half a minute after its start before it gives anything back.
    await eventually(lambda: balance_of(admin_dsn, person.id) == (0, CENT), within=45)

    request = internal_pb.RenewHoldsRequest(
        generation_ids=[living.generation_id, dead.generation_id]
    )
    answer = await chat.RenewHolds(request, timeout=5)
    assert answer.missing_generation_ids == [dead.generation_id]
    (again,) = await held(chat, hold(person.id))
    assert again.verdict == HELD


async def test_a_hold_that_is_released_leaves_room(admin_dsn, chat, person, set_budget):
    await set_budget(person.id, monthly_budget_usd=0.01)
    first = hold(person.id)
    request = internal_pb.ReleaseHoldsRequest(generation_ids=[first.generation_id])

    verdicts = [(await held(chat, each))[0].verdict for each in (first, hold(person.id))]
    released = [(await chat.ReleaseHolds(request, timeout=5)).released_count for _ in range(2)]
    verdicts += [(await held(chat, each))[0].verdict for each in (hold(person.id),)]

    assert verdicts == [HELD, REFUSED, HELD]
    assert released == [1, 0]


def adjustment(told, **more):
    values = {"seq": 1, "cost_delta": -2_200, "note": "the provider took less", **more}
    return internal_pb.AdjustUsageRequest(generation_id=told.generation_id, **values)


async def test_an_adjustment_counts_once_and_leaves_the_record(admin_dsn, operator, person, record):
    told = consumption(person.id, key_id=person.key_id, basis="crash")
    await record(told)

    for _ in range(2):
        await operator.AdjustUsage(adjustment(told), timeout=5)
    await operator.AdjustUsage(adjustment(told, seq=2, cost_delta=5), timeout=5)

    for scope_id in (person.id, person.key_id):
        assert balance_of(admin_dsn, scope_id) == (20_005, 0)
    assert wrong(admin_dsn) == []


async def test_an_adjustment_of_nothing_or_of_another_kind_is_refused(operator, person, record):
    told = consumption(person.id)
    reasons = []
    for ask in (adjustment(told), adjustment(told), adjustment(told, cost_delta=1)):
        try:
            await operator.AdjustUsage(ask, timeout=5)
        except grpc.aio.AioRpcError as refused:
            reasons.append(status.reason_of(refused))
        await record(told)

    assert reasons == ["USAGE_RECORD_NOT_FOUND", "ADJUSTMENT_EXISTS"]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"amount": -1}, "holds[0].amount"),
        ({"amount": 10**15 + 1}, "holds[0].amount"),
        ({"generation_id": "1"}, "holds[0].generation_id"),
        ({"created_at": Timestamp(seconds=2**55)}, "holds[0].created_at"),
        ({"created_at": None}, "holds[0].created_at"),
        ({"key_budget": internal_pb.Budget(total=-1)}, "holds[0].key_budget.total"),
    ],
)
async def test_wrong_holds_are_named(chat, person, more, wrong):
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await held(chat, hold(person.id, **more))

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith(f"{wrong}: ")
