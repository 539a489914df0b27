"""Which addresses a provider's name may stand for."""

import pytest

from services.chat.domain.addresses import is_literal, is_own, permitted

PUBLIC = ["8.8.8.8", "104.18.7.192", "2606:4700::6812:7c0", "::ffff:8.8.8.8", "64:ff9b::808:808"]
OWN = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1"),
    *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "198.18.0.1"),
]
NOBODYS = [
    *("169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1"),
    *("100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_are_permitted(address: str):
    assert permitted(address, private=False)
    assert permitted(address, private=True)


@pytest.mark.parametrize("address", OWN)
def test_those_of_ones_own_network_only_where_that_is_said(address: str):
    assert not permitted(address, private=False)
    assert permitted(address, private=True)


@pytest.mark.parametrize("address", NOBODYS)
def test_those_of_no_provider_never(address: str):
    assert not permitted(address, private=False)
    assert not permitted(address, private=True)


def test_a_host_says_by_itself_where_it_is_or_does_not():
    assert all(map(is_own, ["localhost", "127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"]))
    assert not any(map(is_own, ["api.openai.com", "vllm", "8.8.8.8", "localhost.example", ""]))
    assert is_literal("10.0.0.1")
    assert is_literal("::1")
    assert not is_literal("10.0.0.one")
