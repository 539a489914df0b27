"""How long a provider may take, for what; a control beside each shows that time is what failed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import pytest

from mesh import errors
from services.chat.domain.models import ModelTimeouts
from services.chat.domain.provider import Bounds, Timeouts, Unreached
from services.chat.providers.router import Router
from tests.fake_openai import End, FakeOpenAI, Script
from tests.integration.chat.routing import PROMPT, account, asked, model, relay, routing, text_of


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """Where connections are taken, and nothing is ever said: no TLS either."""

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stay, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def late(at: FakeOpenAI | str, timeouts: Timeouts, bounds: Bounds) -> errors.MeshError:
    async with routing(account("p", at, bounds, timeouts)) as router:
        with pytest.raises(errors.DeadlineExceeded) as failed:
            await asked(router, "p")
    assert failed.value.reason == "PROVIDER_TIMEOUT"
    return failed.value


async def test_no_connection_in_time(mute: str):
    failed = await late(mute, Timeouts(connect=0.2), Bounds(retries=0))
    assert failed.message == "p took no connection for 0.2 seconds"
    assert isinstance(failed, Unreached)


@pytest.mark.parametrize(
    "slow", [Script(headers_after=0.6), Script(first_after=0.6)], ids=["headers", "first part"]
)
async def test_no_first_byte_in_time_and_no_second_try(provider: FakeOpenAI, slow: Script):
    provider.script = slow
    failed = await late(provider, Timeouts(first_byte=0.2), Bounds(retries=3))
    assert failed.message == "p answered nothing for 0.2 seconds"
    assert not isinstance(failed, Unreached)
    assert len(provider.requests) == 1
    async with routing(account("p", provider, timeouts=Timeouts(first_byte=5, idle=0.2))) as router:
        assert text_of(await asked(router, "p")) == "Hello, world!"


async def test_every_chunk_is_a_sign_of_life(provider: FakeOpenAI):
    """Also those in which nothing is written; the control has no more time than they take."""
    empty = ({"role": "assistant"}, *({"content": ""},) * 5, {"content": "done"})
    provider.script = Script(deltas=empty, pause=0.3)
    lively = account("p", provider, timeouts=Timeouts(first_byte=0.6, idle=0.6))
    async with routing(lively) as router:
        assert text_of(await asked(router, "p")) == "done"
        assert text_of(await asked(router, "p", relay(stream=True))) == "done"
    await late(provider, Timeouts(first_byte=0.2), Bounds(retries=0))
    await late(provider, Timeouts(idle=0.2), Bounds(retries=0))


async def test_a_model_has_time_of_its_own(provider: FakeOpenAI):
    thinks = replace(model("thinks", provider="p"), timeouts=ModelTimeouts(5, 5, 10))
    hurries = replace(model("hurries", provider="p"), timeouts=ModelTimeouts(5, 5, total=0.7))
    usual = model("usual", provider="p")
    strict = account("p", provider, timeouts=Timeouts(first_byte=0.2, idle=0.2))
    async with routing(strict, models=(thinks, hurries, usual)) as router:
        provider.script = Script(headers_after=0.5, pieces=("a", "b"), pause=0.5)
        assert text_of(await asked(router, thinks)) == "ab"
        with pytest.raises(errors.DeadlineExceeded, match=r"answered nothing for 0\.2 seconds"):
            await asked(router, usual)
        with pytest.raises(errors.DeadlineExceeded, match=r"took longer than 0\.7 seconds"):
            await asked(router, hurries)
        # What is not streamed is silent until it is whole: all of its time is for that.
        provider.script = Script(headers_after=1.0)
        for of in (thinks, usual):
            assert text_of(await asked(router, of, relay(stream=False))) == "Hello, world!"
        with pytest.raises(errors.DeadlineExceeded, match=r"0\.7 seconds"):
            await asked(router, hurries, relay(stream=False))


async def test_silence_in_the_middle(provider: FakeOpenAI):
    provider.script = Script(pieces=("a", "b"), pause=0.1, end=End.SILENCE)
    failed = await late(provider, Timeouts(idle=0.3), Bounds(retries=3))
    assert failed.message == "p fell silent for 0.3 seconds"
    assert len(provider.requests) == 1


@pytest.mark.parametrize(("total", "whole"), [(0.3, False), (5.0, True)])
async def test_no_end_in_time(provider: FakeOpenAI, total: float, whole: bool):
    provider.script = Script(pieces=("word ",) * 10, pause=0.08)
    timeouts = Timeouts(total=total, idle=0.3)
    if whole:
        async with routing(account("p", provider, timeouts=timeouts)) as router:
            assert text_of(await asked(router, "p")) == "word " * 10
    else:
        failed = await late(provider, timeouts, Bounds(retries=3))
        assert failed.message == "p took longer than 0.3 seconds"


async def test_an_answer_that_is_not_streamed_may_be_silent_until_its_end(provider: FakeOpenAI):
    provider.script = Script(headers_after=0.5)
    hasty = Timeouts(first_byte=0.2, idle=0.2)
    async with routing(account("p", provider, timeouts=hasty)) as router:
        events = await asked(router, "p", relay(stream=False))
        assert text_of(events) == "Hello, world!"
        with pytest.raises(errors.DeadlineExceeded):
            await asked(router, "p", relay(stream=True))


async def test_silence_after_an_answer_fails_no_later_one(provider: FakeOpenAI):
    timeouts, lengths = Timeouts(idle=1.0), range(100, 300, 10)

    async def read_slowly(router: Router) -> int:
        characters = 0
        async with aclosing(router.stream(model("p"), PROMPT)) as events:
            async for event in events:
                characters += len(text_of([event]))
                await asyncio.sleep(0.005)
        return characters

    # Some of them end while as much is buffered as aiohttp buffers.
    async with routing(account("p", provider, timeouts=timeouts)) as router:
        provider.first = [Script(pieces=("a" * 4_000,) * length) for length in lengths]
        read = await asyncio.gather(*(read_slowly(router) for _ in lengths))
        assert sorted(read) == [4_000 * length for length in lengths]
        await asyncio.sleep(2 * timeouts.idle)
        answers = await asyncio.gather(*(asked(router, "p") for _ in lengths))
        assert {text_of(each) for each in answers} == {"Hello, world!"}
