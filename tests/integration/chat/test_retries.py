"""A call that came to nothing is made again: seldom, soon, and never once it may have cost something."""

import asyncio

import pytest

from mesh import errors
from mesh.local.ports import free_ports
from services.chat.domain.provider import Bounds, Declined, Unreached
from services.chat.providers import retry
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.routing import account, asked, relay, routing, text_of

TWICE = Bounds(retries=1)


@pytest.mark.parametrize(
    "failure",
    [
        *(Script(status=status) for status in (500, 502, 503, 504)),
        Script(status=429, headers={"Retry-After": "1"}),
        Script(reset=True),
    ],
    ids=["500", "502", "503", "504", "429", "reset"],
)
async def test_what_passes_is_asked_again(provider: FakeOpenAI, failure: Script):
    for prompt in (relay(stream=True), relay(stream=False)):
        provider.first[:] = [failure]
        async with routing(account("p", provider, TWICE)) as router:
            assert text_of(await asked(router, "p", prompt)) == "Hello, world!"
    assert len(provider.requests) == 4
    provider.first[:] = [failure]
    async with routing(account("p", provider, Bounds(retries=0))) as router:
        with pytest.raises(Declined):
            await asked(router, "p")


async def test_it_is_asked_no_more_often_than_it_may(provider: FakeOpenAI):
    provider.script = Script(status=500)
    async with routing(account("p", provider, Bounds(retries=2))) as router:
        with pytest.raises(errors.Unavailable, match="p failed with status 500"):
            await asked(router, "p")
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Script(status=429, headers={"Retry-After": "30"}), "PROVIDER_RATE_LIMITED"),
        (Script(status=400), "PROVIDER_REFUSED"),
        (Script(status=401), "PROVIDER_CREDENTIALS"),
        (
            Script(status=307, headers={"Location": "http://169.254.169.254/latest"}),
            "PROVIDER_UNAVAILABLE",
        ),
        (Script(status=418), "PROVIDER_UNAVAILABLE"),
        (Script(raw=b": on my way\n\n", pieces=(), end=End.CUT), "PROVIDER_BROKE_OFF"),
        (Script(pieces=(), end=End.MALFORMED), "PROVIDER_BROKE_OFF"),
        (Script(pieces=("a",), end=End.CUT), "PROVIDER_BROKE_OFF"),
    ],
    ids=["429", "400", "401", "redirect", "418", "comment", "malformed", "begun"],
)
async def test_what_does_not_pass_or_may_have_cost_something_is_asked_once(
    provider: FakeOpenAI, failure: Script, reason: str
):
    provider.first[:] = [failure]
    async with routing(account("p", provider, TWICE)) as router:
        with pytest.raises(errors.MeshError) as failed:
            await asked(router, "p")
    assert failed.value.reason == reason
    assert not isinstance(failed.value, Unreached)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("retries", [0, 4])
async def test_a_provider_that_is_being_started_is_waited_for(retries: int):
    (port,) = free_ports(1)
    patient = account("p", f"http://127.0.0.1:{port}/v1", Bounds(retries=retries))
    async with routing(patient) as router:
        answer = asyncio.create_task(asked(router, "p"))
        done, _ = await asyncio.wait({answer}, timeout=0.1)
        assert bool(done) == (retries == 0)
        if done:
            with pytest.raises(Unreached, match="p can't be reached"):
                await answer
            return
        async with FakeOpenAI().serving(port):
            assert text_of(await answer) == "Hello, world!"


@pytest.mark.parametrize(("earned", "most"), [(0.1, 120), (1.0, 200)])
async def test_an_outage_meets_no_storm_of_retries(
    provider: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, earned: float, most: int
):
    monkeypatch.setattr(retry, "_EARNED", earned)
    monkeypatch.setattr(retry, "_MAX_SAVED", 100 * earned)
    provider.script = Script(status=503)
    unbroken = Bounds(retries=1, breaker_failures=1_000)
    async with routing(account("p", provider, unbroken)) as router:
        failed = await asyncio.gather(
            *(asked(router, "p") for _ in range(100)), return_exceptions=True
        )
    assert all(isinstance(each, errors.Unavailable) for each in failed)
    assert most - 10 <= len(provider.requests) <= most


async def test_a_line_that_does_not_end_ends_it_at_once(provider: FakeOpenAI):
    provider.script = Script(raw=b"data: " + b"x" * 10_000_000, pieces=())
    async with asyncio.timeout(2), routing(account("p", provider, TWICE)) as router:
        with pytest.raises(errors.Unavailable) as failed:
            await asked(router, "p")
    assert failed.value.reason == "PROVIDER_BROKE_OFF"
