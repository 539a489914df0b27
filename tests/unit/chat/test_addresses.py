"""Which addresses a provider's name may stand for."""

import ipaddress

import pytest

from services.chat.domain.addresses import is_literal, is_own, permitted

PUBLIC = [
    *("8.8.8.8", "104.18.7.192", "2606:4700::6812:7c0", "::ffff:8.8.8.8", "64:ff9b::808:808"),
    *("2002:808:808::1", "::ffff:0:8.8.8.8", "223.255.255.255", "2000::", "3ffe:ffff::1"),
]
OWN = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "::1", "fc00::1"),
    *("::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "198.18.0.1", "fec0::1", "5f00::1"),
    *("::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b:1::a00:1", "64:ff9b:1:a00:0:100::"),
    *("64:ff9b:1::808:808", "2001:0:808:808::f5ff:fffe", "fd00::1%eth0"),
]
NOBODYS = [
    *("169.254.169.254", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1"),
    *("100.100.100.200", "fd00:ec2::254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"),
    *("168.63.129.16", "fd20:ce::254", "::169.254.169.254", "::ffff:0:169.254.169.254"),
    *("2002:a9fe:a9fe::1", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1:a9fe:a9:fe00::"),
    *("64:ff9b:1:a9:fe:a9fe::", "64:ff9b:1:0:a9:fea9:fe00:0", "2001:0:a9fe:a9fe::1"),
    *("2001::5601:5601", "ff0e::1", "0.1.2.3", "240.0.0.1", "255.255.255.255"),
    *("::ffff:224.0.0.1", "::ffff:1:a00:1", "100:1::1", "200::1", "4000::1", "e000::1", "fe00::1"),
]
# Both of IANA's special-purpose address registries. Where they say "N/A", a packet goes through a
# tunnel to another address, or nowhere. (6to4 and the NAT64 of RFC 6052 are tried above.)
REGISTRY = {
    **dict.fromkeys(
        [
            *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8"),
            *("169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/29", "192.0.0.8/32"),
            *("192.0.0.170/32", "192.0.0.171/32", "192.0.0.11/32", "192.0.2.0/24"),
            *("192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "240.0.0.0/4", "255.255.255.255/32"),
            *("::1/128", "::/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
            *("2001::/32", "2001:2::/48", "2001:10::/28", "2001:db8::/32", "2001:1ff::/32"),
            *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
        ],
        False,
    ),
    **dict.fromkeys(
        [
            *("192.0.0.9/32", "192.0.0.10/32", "192.31.196.0/24", "192.52.193.0/24"),
            *("192.175.48.0/24", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),
            *("2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
            "2620:4f:8000::/48",
        ],
        True,
    ),
}


@pytest.mark.parametrize("block", REGISTRY)
def test_the_ends_of_a_special_block_are_permitted_where_iana_says_they_are_reached(block: str):
    network = ipaddress.ip_network(block)
    ends = {str(network[0]), str(network[-1])}
    assert {permitted(end, private=False) for end in ends} == {REGISTRY[block]}
    assert {is_own(end) for end in ends} == {not REGISTRY[block]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        *[("9.255.255.255", "11.0.0.0"), ("100.63.255.255", "100.128.0.0")],
        *[("126.255.255.255", "128.0.0.0"), ("172.15.255.255", "172.32.0.0")],
        *[("191.255.255.255", "192.0.1.0"), ("192.88.98.255", "192.88.100.0")],
        *[("198.17.255.255", "198.20.0.0"), ("2001:db7:ffff::1", "2001:db9::1")],
        *[("2001:200::1", "3ffe:ffff::1"), ("3fff:1000::1", "2003::1")],
    ],
)
def test_the_neighbours_of_a_special_block_are_permitted(before: str, after: str):
    assert permitted(before, private=False)
    assert permitted(after, private=False)


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
