"""What owners set on their keys, and what they store, over REST."""

from tests.mesh.running import Account, Up
from tests.support import eventually

SPENDING = {
    "token_limit_per_minute": 1000,
    "monthly_budget_usd": 10.5,
    "total_budget_usd": 100,
    "soft_budget_usd": 0.1,
}


async def test_a_patch_sets_limits_and_takes_those_off_that_its_mask_names(
    up: Up, account: Account
):
    path = f"/api/v1/api-keys/{account.key_id}"
    before = (await up.call("GET", path, token=account.token)).body
    patched = (await up.call("PATCH", path, SPENDING, account.token)).body
    mask = {"update_mask": "monthly_budget_usd,token_limit_per_minute", "total_budget_usd": 7}
    off = (await up.call("PATCH", path, mask, account.token)).body

    assert patched == {**before, **SPENDING}
    kept = ("total_budget_usd", "soft_budget_usd")
    assert off == {**before, **{name: SPENDING[name] for name in kept}}


async def test_a_rotated_key_goes_on_with_both_secrets_for_a_while(up: Up, account: Account):
    path = f"/api/v1/api-keys/{account.key_id}"
    rotated = await up.call("POST", f"{path}:rotate", {"grace_period_seconds": 60}, account.token)
    shown = await up.call("GET", path, token=account.token)
    statuses = [
        (await up.call("GET", "/chats", token=key)).status
        for key in (account.key, rotated.body["key"])
    ]
    unasked = await up.call("POST", f"{path}:rotate", token=account.token)
    again = await up.call("POST", f"{path}:rotate", {"grace_period_seconds": 0}, account.token)

    async def only_the_last_one() -> bool:
        keys = (account.key, rotated.body["key"], unasked.body["key"], again.body["key"])
        found = [(await up.call("GET", "/chats", token=key)).status for key in keys]
        return found == [401, 401, 401, 200]

    assert rotated.status == 200
    assert shown.body == {name: told for name, told in rotated.body.items() if name != "key"}
    assert statuses == [200, 200]
    await eventually(only_the_last_one, within=2)


async def test_a_credential_is_stored_listed_and_deleted_and_never_shown(up: Up, account: Account):
    path, secret = "/v1/provider-credentials", "sk-of-this-account-4321"
    asked = {"provider": "openai", "api_key": secret}
    stored = await up.call("POST", path, asked, account.token)
    listed = await up.call("GET", path, token=account.token)
    wrong = await up.call("POST", path, {**asked, "api_key": "gsk_not-of-openai"}, account.token)
    by_key = await up.call("GET", path, token=account.key)
    deleted = await up.call("DELETE", f"{path}/openai", token=account.token)
    gone = await up.call("DELETE", f"{path}/openai", token=account.token)

    assert (stored.body["last_four"], stored.body["version"]) == ("4321", 1)
    assert listed.body == {"provider_credentials": [stored.body], "next_page_token": ""}
    assert secret not in stored.text + listed.text
    assert wrong.body["error"]["message"] == "api_key: API key must start with sk-"
    assert (by_key.status, deleted.status, gone.status) == (403, 200, 404)
    logs = "".join(file.read_text() for file in (up.home / "logs").iterdir())
    assert secret not in logs
