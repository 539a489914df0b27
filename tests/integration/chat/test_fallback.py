"""When another model answers in place of the one that was asked, and when none may."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mesh import errors
from services.chat.domain.provider import (
    Answering,
    Bounds,
    Part,
    QuotaSpent,
    Report,
    Timeouts,
    Unreached,
)
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.routing import (
    HURRIED,
    PROMPT,
    UNHURRIED,
    account,
    asked,
    model,
    relay,
    routing,
    text_of,
    who,
)
from tests.support import eventually

NOWHERE = "http://127.0.0.1:1/v1"
ALONE = model("alone", provider="first")
MODELS = (model("first", "second", "third"), model("second"), model("third", most=7), ALONE)
OWN = replace(PROMPT, key="sk-the-callers")


@pytest.fixture
async def second() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI().serving() as fake:
        fake.script = Script(pieces=("from ", "the second"))
        yield fake


@pytest.mark.parametrize(
    "failure",
    [
        Script(status=500),
        Script(status=401),
        Script(status=429, headers={"Retry-After": "60"}),
        Script(reset=True),
        Script(first_after=60),
        Script(pieces=(), end=End.CUT),
        Script(pieces=(), end=End.EARLY),
        Script(pieces=(), end=End.MALFORMED),
        Script(pieces=(), end=End.ERROR),
    ],
    ids=["500", "401", "429", "reset", "silence", "cut", "early", "malformed", "error"],
)
async def test_who_can_not_answer_is_replaced(
    provider: FakeOpenAI, second: FakeOpenAI, failure: Script
):
    provider.script = failure
    first = account("first", provider, timeouts=HURRIED if failure.first_after else UNHURRIED)
    accounts = first, account("second", second), account("third", NOWHERE)
    async with routing(*accounts, models=MODELS) as router:
        events = await asked(router, MODELS[0])
        assert events[0] == Answering(MODELS[1])
        assert (who(events), text_of(events)) == (["second"], "from the second")
        assert isinstance(events[-1], Report)
        assert second.requests[0].body["model"] == "second"
        failed = errors.Unavailable, errors.DeadlineExceeded, errors.ResourceExhausted
        with pytest.raises(failed, match="first"):
            await asked(router, ALONE)  # Without a fallback.
    assert len(second.requests) == 1


async def test_one_that_is_not_streamed_is_replaced_too(provider: FakeOpenAI, second: FakeOpenAI):
    provider.script = Script(status=502)
    accounts = account("first", provider), account("second", second), account("third", NOWHERE)
    async with routing(*accounts, models=MODELS) as router:
        for stream in (False, True):
            events = await asked(router, MODELS[0], relay(stream=stream))
            assert (who(events), text_of(events)) == (["second"], "from the second")
    assert [request.body["model"] for request in second.requests] == ["second"] * 2


async def test_after_the_first_part_nobody_is_asked_again(provider: FakeOpenAI, second: FakeOpenAI):
    provider.script = Script(pieces=("a", "b"), pause=0.03, end=End.CUT)
    accounts = (
        account("first", provider, Bounds(retries=3)),
        account("second", second),
        account("third", second),
    )
    got = []
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(errors.Unavailable) as failed:
            async for event in router.stream(MODELS[0], PROMPT):
                got.append(event)
    assert failed.value.reason == "PROVIDER_BROKE_OFF"
    assert (who(got), text_of(got)) == (["first"], "ab")
    assert (len(provider.requests), len(second.requests)) == (1, 0)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
async def test_what_is_wrong_with_the_request_is_said_at_once(
    provider: FakeOpenAI, second: FakeOpenAI, status: int
):
    provider.script = Script(status=status, body='{"error": {"message": "too long"}}')
    accounts = account("first", provider), account("second", second), account("third", second)
    async with routing(*accounts, models=MODELS) as router:
        refused = errors.NotFound if status == 404 else errors.FailedPrecondition
        with pytest.raises(refused, match="first: too long"):
            await asked(router, MODELS[0])
    assert not second.requests


async def test_an_own_key_stays_at_its_provider(provider: FakeOpenAI, second: FakeOpenAI):
    models = (
        model("first", "second", "sibling"),
        model("sibling", provider="first"),
        model("second"),
    )
    accounts = account("first", provider), account("second", second)
    async with routing(*accounts, models=models) as router:
        provider.first[:] = [Script(status=503)]
        assert who(await asked(router, models[0], OWN)) == ["sibling"]
        provider.script = Script(status=401)
        with pytest.raises(errors.Unauthenticated, match="first refused this key"):
            await asked(router, models[0], OWN)
        assert who(await asked(router, models[0])) == ["second"]  # By our key it goes on.
    keys = [request.headers["Authorization"] for request in provider.requests]
    assert keys == ["Bearer sk-the-callers"] * 3 + ["Bearer sk-ours"]
    assert [each.headers["Authorization"] for each in second.requests] == ["Bearer sk-ours"]


async def test_a_server_without_keys_is_ours_alone(provider: FakeOpenAI):
    async with routing(account("open", provider, key="", needs_key=False)) as router:
        with pytest.raises(errors.InvalidRequest, match="api_key: open takes no keys"):
            await asked(router, "open", OWN)
        assert not provider.requests
        assert who(await asked(router, "open")) == ["open"]
    assert "Authorization" not in provider.requests[0].headers


async def test_a_provider_without_a_key_of_ours_is_left_out(
    provider: FakeOpenAI, second: FakeOpenAI
):
    provider.script = Script(status=500)
    accounts = (
        account("first", provider),
        account("second", second, key=""),
        account("third", second),
    )
    async with routing(*accounts, models=MODELS) as router:
        assert who(await asked(router, MODELS[0])) == ["third"]
    (request,) = second.requests
    assert request.body["max_tokens"] == 7  # As many as the stand-in has, of 100 asked for.


async def test_what_a_stand_in_refuses_is_no_fault_of_the_request(
    provider: FakeOpenAI, second: FakeOpenAI
):
    provider.script, second.script = Script(status=500), Script(status=400)
    accounts = account("first", provider), account("second", second), account("third", NOWHERE)
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(errors.Unavailable, match="first failed with status 500") as failed:
            await asked(router, MODELS[0])
    assert not isinstance(failed.value, Unreached)


@pytest.mark.parametrize("other", [Script(status=500), Script(status=429), Script(status=404)])
async def test_who_is_limited_is_told_so_when_nobody_stands_in(
    provider: FakeOpenAI, second: FakeOpenAI, other: Script
):
    provider.script = Script(status=429, headers={"Retry-After": "60"})
    second.script = other
    accounts = account("first", provider), account("second", second), account("third", NOWHERE)
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(QuotaSpent, match="first is rate limiting") as failed:
            await asked(router, MODELS[0])
    assert failed.value.retry_after == 60
    assert len(second.requests) == 1


async def test_only_if_nobody_got_the_prompt_it_is_unreached(provider: FakeOpenAI):
    accounts = (account(name, NOWHERE) for name in ("first", "second", "third"))
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(Unreached, match="third can't be reached"):
            await asked(router, MODELS[0])
    provider.script = Script(status=500)
    accounts = (
        account(name, provider if name == "second" else NOWHERE)
        for name in ("first", "second", "third")
    )
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(errors.Unavailable, match="second failed") as failed:
            await asked(router, MODELS[0])
    assert not isinstance(failed.value, Unreached)


async def test_all_of_a_chain_has_the_time_of_one(
    provider: FakeOpenAI, second: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.chat.providers.router._ANSWERED_WITHIN_S", 0.4)
    provider.script = second.script = Script(first_after=60)
    slow = Timeouts(first_byte=0.3)
    accounts = (
        account("first", provider, timeouts=slow),
        account("second", second, timeouts=slow),
        account("third", second, timeouts=slow),
    )
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(errors.DeadlineExceeded, match=r"second answered nothing for 0\.\d+ s"):
            await asked(router, MODELS[0])
    assert (len(provider.requests), len(second.requests)) == (1, 1)


ROLE = {"role": "assistant", "content": ""}
THOUGHT = {"reasoning_content": "Let me see, this will take a while"}


@pytest.mark.parametrize("end", [End.CUT, End.ERROR, End.SILENCE, End.MALFORMED])
@pytest.mark.parametrize("streamed", [False, True], ids=["ours", "relayed"])
async def test_who_said_nothing_yet_is_replaced_though_its_answer_has_begun(
    provider: FakeOpenAI, second: FakeOpenAI, end: End, streamed: bool
):
    provider.script = Script(deltas=(ROLE, {"content": ""}), end=end)
    accounts = (
        account("first", provider, timeouts=HURRIED if end is End.SILENCE else UNHURRIED),
        account("second", second),
        account("third", NOWHERE),
    )
    async with routing(*accounts, models=MODELS) as router:
        prompt = relay(stream=True) if streamed else PROMPT
        events = await asked(router, MODELS[0], prompt)
    assert (who(events), text_of(events)) == (["second"], "from the second")
    raws = b"".join(event.raw for event in events if isinstance(event, Part))
    assert raws.count(b'"role"') == 0  # Nothing of the first: the stand-in of this test has none.


async def test_thoughts_that_nobody_was_shown_forbid_no_stand_in(
    provider: FakeOpenAI, second: FakeOpenAI
):
    provider.script = Script(deltas=(ROLE, THOUGHT), pause=0.03, end=End.CUT)
    accounts = account("first", provider), account("second", second), account("third", NOWHERE)
    async with routing(*accounts, models=MODELS) as router:
        events = await asked(router, MODELS[0])
        assert (who(events), text_of(events)) == (["first", "second"], "from the second")
        got = []
        with pytest.raises(errors.Unavailable):
            async for event in router.stream(MODELS[0], relay(stream=True)):
                got.append(event)
    assert who(got) == ["first"]  # Who relays has shown them.


async def test_what_is_relayed_and_not_read_is_not_held_for_long(
    provider: FakeOpenAI, second: FakeOpenAI
):
    """As sound is: it goes to its reader before any text comes, and nobody stands in then."""
    sound = {"audio": {"id": "audio_1", "data": "UklGR" * 2_000}}
    provider.script = Script(deltas=(ROLE, sound, sound), pause=0.1, end=End.CUT)
    accounts = account("first", provider), account("second", second), account("third", NOWHERE)
    got = []
    async with routing(*accounts, models=MODELS) as router:
        with pytest.raises(errors.Unavailable, match="first broke off"):
            async for event in router.stream(MODELS[0], relay(stream=True)):
                got.append(event)
    assert who(got) == ["first"]
    assert b"".join(event.raw for event in got if isinstance(event, Part)).count(b"UklGR") == 4_000
    assert not second.requests


async def test_failures_before_any_text_open_the_breaker(provider: FakeOpenAI):
    provider.script = Script(deltas=(ROLE,), end=End.CUT)
    bounds = Bounds(retries=0, breaker_failures=2, breaker_pause=60)
    async with routing(account("first", provider, bounds)) as router:
        for _ in range(2):
            with pytest.raises(errors.Unavailable, match="broke off"):
                await asked(router, "first")
        with pytest.raises(Unreached, match="is not asked for now"):
            await asked(router, "first")


async def test_a_reader_that_leaves_stops_the_stand_in(provider: FakeOpenAI, second: FakeOpenAI):
    provider.script = Script(status=500)
    second.script = Script(pieces=("word ",) * 500, pause=0.02)
    accounts = account("first", provider), account("second", second), account("third", second)
    async with routing(*accounts, models=MODELS) as router:
        answer = router.stream(MODELS[0], PROMPT)
        async for event in answer:
            if isinstance(event, Part):
                break
        await answer.aclose()
        await eventually(lambda: second.requests[0].closed_at, within=0.25)
