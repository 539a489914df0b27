"""Whoever dies wherever: one record for each generation, nothing charged that was not sent, nothing left."""

import contextlib
import itertools
from collections.abc import Iterable

import psycopg
import pytest

from mesh import failpoints
from tests.crash.campaign import Campaign, Case, Traffic
from tests.support import eventually

CHAT = ("held", "opened", "first_part", "part", "segment", "ending", "ended", "telling", "told")
USAGE = ("usage.holding", "usage.held", "usage.recording", "usage.recorded")
# In the middle of a stream, and not always at its beginning.
NTH = {"chat.part": 90, "chat.segment": 4, "chat.ending": 2}
# Which process comes to a place that is not chat's own.
BY_WORKERS = ("worker.claimed",)


def cases(places: Iterable[str], victim: str, surface: str = "stream") -> list[Case]:
    return [Case(place, victim, surface, NTH.get(place, 1)) for place in places]


OF_CHAT = [f"chat.{place}" for place in CHAT]
GROUPS = [
    cases(OF_CHAT, "itself"),
    cases(OF_CHAT, "postgres"),
    cases([*BY_WORKERS, *OF_CHAT], "itself", "task"),
    cases(OF_CHAT, "usage"),
    cases(USAGE, "itself"),
    cases(USAGE, "postgres"),
]
# In turns, so that no process dies twice in a row: it would be started again later and later.
MATRIX = [case for turn in itertools.zip_longest(*GROUPS) for case in turn if case is not None]
ENDED_WITHIN = 90
TRIES = 3


def test_every_place_is_tried():
    assert {case.place for case in MATRIX} | {"chat.reap"} == set(failpoints.PLACES)


@pytest.fixture(scope="module")
async def outcomes(campaign: Campaign) -> dict[str, tuple[bool, list[str]]]:
    """Whether each case happened, and what is wrong with it, at the latest 90 seconds after the last of them."""
    traffic = [each for case in MATRIX for each in await fired(campaign, case)]
    left: dict[str, tuple[bool, list[str]]] = {}

    def right() -> bool:
        left.clear()
        for each in traffic:
            was_fired, wrong = left.get(each.case.name, (False, []))
            left[each.case.name] = (was_fired or each.fired, wrong + campaign.wrong(each))
        return not any(wrong for _, wrong in left.values())

    with contextlib.suppress(AssertionError):  # Each case tells its own.
        await eventually(right, within=ENDED_WITHIN)
    return left


async def fired(campaign: Campaign, case: Case) -> list[Traffic]:
    """What was asked until a process came to the place: a mesh that recovers may refuse it first."""
    traffic: list[Traffic] = []
    while len(traffic) < TRIES and not (traffic and traffic[-1].fired):
        traffic.append(await campaign.run(case))
    return traffic


@pytest.mark.parametrize("case", MATRIX, ids=lambda case: case.name)
async def test_all_is_counted_once_and_nothing_is_left(
    outcomes: dict[str, tuple[bool, list[str]]], case: Case
):
    was_fired, wrong = outcomes[case.name]
    assert was_fired
    assert wrong == []


@pytest.mark.usefixtures("outcomes")
async def test_the_ledger_adds_up_after_all_that(campaign: Campaign):
    status, output = await campaign.up.khesht("audit")
    assert status == 0, output


@pytest.mark.usefixtures("outcomes")
async def test_without_the_reaper_a_generation_runs_for_ever(campaign: Campaign):
    switched_off = campaign.places / "chat.reap"
    switched_off.write_text("raise always")
    traffic = await campaign.run(Case("chat.part", "itself", nth=90))
    with pytest.raises(AssertionError):
        await eventually(lambda: campaign.wrong(traffic) == [], within=40)
    assert any("is running" in each for each in campaign.wrong(traffic))
    switched_off.unlink()
    await eventually(lambda: campaign.wrong(traffic) == [], within=ENDED_WITHIN)


@pytest.mark.usefixtures("outcomes")
async def test_where_settling_twice_counts_twice_the_books_are_wrong(campaign: Campaign):
    with psycopg.connect(campaign.admin) as connection:
        connection.execute(
            "ALTER TABLE usage.usage_records DROP CONSTRAINT usage_records_pkey CASCADE"
        )
    traffic = await campaign.run(Case("chat.told", "itself"))
    twice = await eventually(
        lambda: [each for each in campaign.wrong(traffic) if "records" in each], within=60
    )
    assert twice
    status, output = await campaign.up.khesht("audit")
    assert status == 1
    assert "two records" in output
