"""A provider that fails is left alone, and one that is full is not asked; both are said at once."""

import asyncio
import contextlib
import time
from contextlib import aclosing
from uuid import UUID

import pytest

from mesh import errors
from services.chat.domain.provider import Bounds, Part, Unreached
from services.chat.providers.router import Router
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.routing import (
    HURRIED,
    PROMPT,
    UNHURRIED,
    account,
    asked,
    model,
    routing,
    text_of,
    who,
)
from tests.support import eventually

BREAKS = Bounds(retries=0, breaker_failures=3, breaker_pause=0.3)


async def outcomes(router: Router, count: int, at_once: bool = False) -> list[errors.MeshError]:
    """The errors of so many calls to p."""
    if at_once:
        calls = (asked(router, "p") for _ in range(count))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, errors.MeshError)]
    failed = []
    for _ in range(count):
        try:
            await asked(router, "p")
        except errors.MeshError as error:
            failed.append(error)
    return failed


@pytest.mark.parametrize(("failures", "calls"), [(3, 3), (1_000, 50)])
async def test_in_an_outage_few_calls_reach_the_provider(
    provider: FakeOpenAI, failures: int, calls: int
):
    provider.script = Script(status=503)
    bounds = Bounds(retries=0, breaker_failures=failures, breaker_pause=30)
    async with routing(account("p", provider, bounds)) as router:
        failed = await outcomes(router, 50)
        assert router.states["p"] == ("unavailable" if calls == 3 else "configured")
    assert {error.reason for error in failed} == {"PROVIDER_UNAVAILABLE"}
    assert len(provider.requests) == calls
    refused = [error for error in failed if isinstance(error, Unreached)]
    assert len(refused) == 50 - calls
    assert all(0 < (error.retry_after or 0) <= 30 for error in refused)


async def failures_of(router: Router, caller: int, count: int = 1) -> list[errors.MeshError]:
    """The errors of so many calls of an account to p."""
    failed = []
    for _ in range(count):
        try:
            await asked(router, "p", caller=UUID(int=caller))
        except errors.MeshError as error:
            failed.append(error)
    return failed


@pytest.mark.parametrize(
    "failure", [Script(status=503), Script(reset=True), Script(first_after=60)]
)
async def test_one_account_keeps_nobody_else_from_a_provider(provider: FakeOpenAI, failure: Script):
    timeouts = HURRIED if failure.first_after else UNHURRIED
    bounds = Bounds(retries=0, breaker_failures=3, breaker_pause=30)
    async with routing(account("p", provider, bounds, timeouts)) as router:
        provider.first[:] = [failure] * 3
        failed = await failures_of(router, 1, 6)
        assert [isinstance(error, Unreached) for error in failed] == [False] * 3 + [True] * 3
        assert len(provider.requests) == 3
        assert not await failures_of(router, 2)  # Another account is answered at once,
        assert not await failures_of(router, 1)  # and so it is known to be well.


async def test_what_a_request_did_wrong_keeps_nobody_from_a_provider(provider: FakeOpenAI):
    wrong = b'data: {"error": {"message": "no", "code": "context_length_exceeded"}}\n\n'
    async with routing(account("p", provider, Bounds(retries=3, breaker_failures=1))) as router:
        for script in (Script(status=400), Script(exact=(wrong,))):
            provider.script = script
            provider.requests.clear()
            failed = await failures_of(router, 1, 6)
            assert {error.reason for error in failed} == {"PROVIDER_REFUSED"}
            assert len(provider.requests) == 6
            provider.script = Script()
            assert not await failures_of(router, 2)


async def test_an_outage_is_one_that_several_accounts_have(provider: FakeOpenAI):
    bounds = Bounds(retries=0, breaker_failures=3, breaker_pause=0.3)
    async with routing(account("p", provider, bounds)) as router:
        provider.script = Script(status=503)
        await failures_of(router, 1, 2)
        await failures_of(router, 2, 2)
        assert router.states["p"] == "configured"
        await failures_of(router, 3)
        assert (router.states["p"], len(provider.requests)) == ("unavailable", 5)
        for caller in (1, 2, 3, 4):
            (refused,) = await failures_of(router, caller)
            assert isinstance(refused, Unreached)

        async def tried() -> int:
            await failures_of(router, 4)
            return len(provider.requests) - 5

        assert await eventually(tried) == 1  # And its failure keeps it closed.
        assert isinstance((await failures_of(router, 5))[0], Unreached)
        provider.script = Script()

        async def well() -> bool:
            return not await failures_of(router, 5)

        assert await eventually(well)
        assert router.states["p"] == "configured"
        for caller in (1, 2, 3, 4):
            assert not await failures_of(router, caller)


async def test_after_a_pause_one_call_tries_and_opens_the_way(provider: FakeOpenAI):
    provider.script = Script(status=503)
    async with routing(account("p", provider, BREAKS)) as router:
        await outcomes(router, 3)
        provider.requests.clear()

        async def tried() -> int:
            await outcomes(router, 10, at_once=True)
            return len(provider.requests)

        assert await eventually(tried) == 1
        assert router.states["p"] == "unavailable"
        provider.script = Script(headers_after=0.1)

        async def well() -> int:
            return 10 - len(await outcomes(router, 10, at_once=True))

        assert await eventually(well) == 1
        assert router.states["p"] == "configured"
        assert not await outcomes(router, 10, at_once=True)


async def test_a_trial_that_is_cancelled_leaves_room_for_another(provider: FakeOpenAI):
    provider.script = Script(status=503)
    async with routing(account("p", provider, BREAKS)) as router:
        await outcomes(router, 3)
        provider.requests.clear()
        provider.script = Script(first_after=60)

        async def tries() -> asyncio.Task[object] | None:
            trial = asyncio.create_task(asked(router, "p"))
            await asyncio.wait({trial}, timeout=0.05)
            if not trial.done():
                return trial
            with pytest.raises(Unreached):
                await trial
            return None

        trial = await eventually(tries)
        assert trial is not None
        trial.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await trial
        provider.script = Script()
        assert text_of(await asked(router, "p")) == "Hello, world!"


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429])
async def test_who_refuses_is_no_outage(provider: FakeOpenAI, status: int):
    provider.script = Script(status=status)
    async with routing(account("p", provider, BREAKS)) as router:
        await outcomes(router, 10)
        assert router.states["p"] == "configured"
    assert len(provider.requests) == 10


async def test_an_answer_in_between_begins_the_count_again(provider: FakeOpenAI):
    provider.first[:] = [Script(status=503), Script(status=503), Script()] * 4
    async with routing(account("p", provider, BREAKS)) as router:
        assert len(await outcomes(router, 12)) == 8
    assert len(provider.requests) == 12


async def test_while_one_is_left_alone_its_stand_in_answers_at_once(provider: FakeOpenAI):
    models = model("p", "q"), model("q")
    provider.first[:] = [Script(status=503), Script()] * 3
    accounts = account("p", provider, BREAKS), account("q", provider)
    async with routing(*accounts, models=models) as router:
        for _ in range(6):
            assert who(await asked(router, models[0])) == ["q"]
    assert [r.body["model"] for r in provider.requests].count("p") == 3


async def test_more_calls_than_there_may_be_are_refused_after_a_moment(provider: FakeOpenAI):
    provider.script = Script(pieces=("word ",) * 100, pause=0.02)
    async with routing(account("p", provider, Bounds(concurrency=2))) as router:
        async with (
            aclosing(router.stream(model("p"), PROMPT)) as one,
            aclosing(router.stream(model("p"), PROMPT)) as two,
        ):
            await anext(one)
            await anext(two)
            began = time.monotonic()
            with pytest.raises(Unreached) as refused:
                await asked(router, "p")
            assert (refused.value.reason, refused.value.retry_after) == ("PROVIDER_BUSY", 1)
            assert refused.value.status == "UNAVAILABLE"
            assert 0.9 < time.monotonic() - began < 2
            assert len(provider.requests) == 2
        assert await anext(router.stream(model("p"), PROMPT))
    async with routing(account("p", provider, Bounds(concurrency=3))) as router:
        assert len(await asyncio.gather(*(asked(router, "p") for _ in range(3)))) == 3


async def test_one_account_leaves_places_for_others(provider: FakeOpenAI):
    provider.script = Script(pieces=("word ",) * 200, pause=0.02)
    greedy, other = UUID(int=1), UUID(int=2)
    async with (
        routing(account("p", provider, Bounds(concurrency=4))) as router,
        contextlib.AsyncExitStack() as open_streams,
    ):
        for caller in (greedy, greedy, greedy):
            stream = router.stream(model("p"), PROMPT, caller)
            await open_streams.enter_async_context(aclosing(stream))
            await anext(stream)
        with pytest.raises(Unreached) as refused:
            await asked(router, "p", caller=greedy)
        assert refused.value.reason == "PROVIDER_BUSY"
        stream = router.stream(model("p"), PROMPT, other)
        await open_streams.enter_async_context(aclosing(stream))
        assert await anext(stream)


async def test_who_is_full_is_replaced(provider: FakeOpenAI):
    models = model("p", "q"), model("q")
    accounts = account("p", provider, Bounds(concurrency=1)), account("q", provider)
    async with routing(*accounts, models=models) as router:
        provider.first[:] = [Script(pieces=("word ",) * 100, pause=0.02)]
        async with aclosing(router.stream(models[0], PROMPT)) as one:
            await anext(one)
            assert who(await asked(router, models[0])) == ["q"]


async def test_who_waits_is_let_in_and_who_leaves_takes_no_room(provider: FakeOpenAI):
    provider.script = Script(pieces=("word ",) * 100, pause=0.02)
    async with routing(account("p", provider, Bounds(concurrency=1))) as router:
        first = router.stream(model("p"), PROMPT)
        await anext(first)
        waiting = [asyncio.create_task(asked(router, "p")) for _ in range(20)]
        await asyncio.wait(waiting, timeout=0.05)
        for task in waiting[:-1]:
            task.cancel()
        provider.script = Script()
        await first.aclose()
        assert text_of(await waiting[-1]) == "Hello, world!"
        for _ in range(3):
            async with asyncio.timeout(0.5):
                assert any(isinstance(each, Part) for each in await asked(router, "p"))
    assert len(provider.requests) == 5
