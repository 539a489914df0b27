"""Budgets over REST, and the ledger as the operator sees it."""

import psycopg
import pytest

from cli.audit import CHECKS
from tests.fake_openai import FakeOpenAI
from tests.mesh.running import Account, Up
from tests.support import eventually


async def test_an_admin_sets_a_budget_and_the_account_sees_it(up: Up, account: Account, admin: str):
    path = f"/v1/users/{account.id}/budget"
    limits = {"monthly_budget_usd": 10.5, "soft_budget_usd": 8}
    made = await up.call("PUT", path, limits, admin)
    assert made.status == 200
    assert set(made.body) == {*limits, "spent_usd", "held_usd", "resets_at"}
    assert made.body["monthly_budget_usd"] == 10.5
    assert made.body["resets_at"].endswith("-01T00:00:00Z")
    for answer in (
        await up.call("GET", path, token=admin),
        await up.call("GET", "/v1/budget", token=account.token),
        await up.call("GET", "/v1/budget", token=account.key),
    ):
        assert answer.body == made.body
    lifted = await up.call("PUT", path, {"total_budget_usd": 3}, admin)
    assert lifted.body == {"total_budget_usd": 3, "spent_usd": 0, "held_usd": 0}


@pytest.mark.parametrize("verb", ["GET", "PUT"])
async def test_nobody_but_an_admin_has_to_do_with_budgets_of_accounts(
    up: Up, account: Account, verb: str
):
    body = {} if verb == "PUT" else None
    for credential in (account.token, account.key):
        answer = await up.call(verb, f"/v1/users/{account.id}/budget", body, credential)
        assert (answer.status, answer.reason) == (403, "NOT_PERMITTED")


async def test_what_was_spent_is_seen_corrected_and_audited(
    up: Up, account: Account, provider: FakeOpenAI
):
    body = {"message": "Hi", "model": "gpt-4o-mini", "store": False}
    reply = await up.call("POST", "/chat", body, account.key)

    async def spent() -> float:
        return float((await up.call("GET", "/v1/budget", token=account.key)).body["spent_usd"])

    before = await eventually(spent)
    arguments = ("adjust", reply.body["generation_id"], "--usd", "-0.000001", "--note", "less")
    for _ in range(2):
        assert await up.khesht(*arguments) == (0, "adjusted\n")
    assert await spent() == pytest.approx(before - 0.000001, abs=1e-12)

    status, output = await up.khesht("audit")
    assert status == 0, output
    assert [line[:7] for line in output.splitlines()] == ["true   "] * len(CHECKS)


async def test_an_audit_fails_and_names_what_is_wrong(up: Up, account: Account):
    insert = "INSERT INTO usage.balances VALUES ('user', %s, 'total', 5, 0)"
    delete = "DELETE FROM usage.balances WHERE scope_id = %s"
    admin = await up.administrator()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(insert, [account.id])
        status, output = await up.khesht("audit")
        connection.execute(delete, [account.id])

    assert status == 1
    assert output.startswith("WRONG  each balance has spent")
    assert f"       scope=user scope_id={account.id} period=total spent=5 due=None\n" in output
    assert (await up.khesht("audit"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("00000000-0000-0000-0000-000000000007", "--usd", "1"), "no usage record of generation"),
        (("7", "--usd", "1"), "generation_id: "),
        (("7", "--usd", "much"), "'much' is no sum of dollars"),
        (("7", "--usd", "nan"), "at most a million dollars"),
    ],
)
async def test_an_adjustment_that_cannot_be_is_refused_in_one_line(up: Up, arguments, said):
    status, output = await up.khesht("adjust", *arguments, "--note", "a test")

    assert (status, output.count("\n")) == (2, 1)
    assert said in output
