"""Where a provider's key may go, by what its name stands for at the moment of the connection."""

import socket
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.chat.domain.provider import Account, Unreached
from services.chat.providers.codecs.openai import OpenAI
from services.chat.providers.transport import Transport
from tests.fake_openai import FakeOpenAI, Script
from tests.integration.chat.routing import HURRIED, PROMPT


class Names(AbstractResolver):
    """Gives each of `answers` in turn, the last one for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


async def opened(stack: AsyncExitStack, at: FakeOpenAI, names: Names, private: bool) -> Transport:
    port = urlsplit(at.url).port
    account = Account(
        "p", f"http://provider.example:{port}/v1", "sk-ours", private=private, timeouts=HURRIED
    )
    return await stack.enter_async_context(Transport.opened(account, OpenAI(), names))


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"]])
async def test_a_name_of_a_private_address_is_called_only_where_that_is_allowed(
    provider: FakeOpenAI, addresses: list[str], private: bool
):
    async with AsyncExitStack() as stack:
        names = Names(addresses if not private else ["127.0.0.1"])
        openai = await opened(stack, provider, names, private)
        if private:
            assert [part async for part in openai.stream(PROMPT)]
        else:
            with pytest.raises(Unreached, match="p can't be reached"):
                await anext(openai.stream(PROMPT))
    assert len(provider.requests) == private


async def test_a_name_that_stands_for_another_address_later_is_looked_at_again(
    provider: FakeOpenAI,
):
    names = Names(["127.0.0.1"], ["169.254.169.254"])
    async with AsyncExitStack() as stack:
        before, after = [await opened(stack, provider, names, private=True) for _ in range(2)]
        assert [part async for part in before.stream(PROMPT)]
        with pytest.raises(Unreached):
            await anext(after.stream(PROMPT))
    assert (names.asked, len(provider.requests)) == (2, 1)


async def test_a_redirect_is_not_followed(provider: FakeOpenAI):
    for status in (301, 302, 303, 307, 308):
        provider.script = Script(status=status, headers={"Location": provider.url + "/other"})
        async with AsyncExitStack() as stack:
            openai = await opened(stack, provider, Names(["127.0.0.1"]), private=True)
            with pytest.raises(Exception, match=f"p failed with status {status}"):
                await anext(openai.stream(PROMPT))
    assert len(provider.requests) == 5
