"""PostgreSQL goes away and comes back under load: nothing is lost or doubled, and nobody is restarted."""

import asyncio
import contextlib
import signal
import time

import aiohttp
import psycopg
import pytest

from tests.crash.campaign import Campaign
from tests.crash.load import Load
from tests.fake_openai import Script
from tests.mesh.running import Account, new_account
from tests.support import eventually

AT_ONCE = 8


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["stopped", "killed"])
async def test_it_goes_away_under_load_and_comes_back(campaign: Campaign, how: signal.Signals):
    campaign.provider.script = Script(pieces=("one ", "two"), tokens=(3, 2))
    account = await eventually_an_account(campaign)
    load = Load(campaign.up, account)
    before = {name: row["pid"] for name, row in (await campaign.up.statuses()).items()}
    asking = [asyncio.create_task(load.ask()) for _ in range(AT_ONCE)]
    await eventually(lambda: len(load.acknowledged) > 50, within=30)
    for process in campaign.processes("postgres"):
        process.send_signal(how)
    await eventually(lambda: not reachable(campaign), within=10)
    await eventually(lambda: reachable(campaign), within=30)
    back_at = time.monotonic()
    await eventually(lambda: load.succeeded_at > back_at + 3, within=20)
    for task in asking:
        task.cancel()
    assert load.failed_at < back_at + 2
    after = {name: row["pid"] for name, row in (await campaign.up.statuses()).items()}
    assert {name for name in after if after[name] != before[name]} == {"postgres"}

    def recorded() -> list[str]:
        with psycopg.connect(campaign.admin) as connection:
            rows = connection.execute(
                "SELECT generation_id::text FROM usage.usage_records WHERE user_id = %s",
                [account.id],
            )
            return [row[0] for row in rows]

    await eventually(lambda: set(load.acknowledged) <= set(recorded()), within=60)
    assert len(recorded()) == len(set(recorded()))


async def eventually_an_account(campaign: Campaign) -> Account:
    """An account that may ask without end, of a mesh that may just have recovered."""

    async def made() -> Account | None:
        with contextlib.suppress(KeyError, OSError, aiohttp.ClientError):
            account = await new_account(campaign.up)
            limit = {"rate_limit_per_minute": 100_000}
            path = f"/api/v1/api-keys/{account.key_id}"
            changed = await campaign.up.call("PATCH", path, limit, account.token)
            return account if changed.status == 200 else None
        return None

    found = await eventually(made, within=30)
    assert found is not None
    return found


def reachable(campaign: Campaign) -> bool:
    try:
        psycopg.connect(campaign.admin, connect_timeout=1).close()
    except psycopg.OperationalError:
        return False
    return True
