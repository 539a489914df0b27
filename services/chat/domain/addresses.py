"""Which addresses a provider may have: nobody's key is to be sent into a network by mistake.

The tables are ours, as `is_global` of Python's `ipaddress` differs between versions.
"""

import ipaddress
from collections.abc import Iterator

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*blocks: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, blocks))


# IANA's special-purpose registries of IPv4 and IPv6, as of 2025: the blocks that are not
# globally reachable. Below them, the parts of them that are.
_SPECIAL = _networks(
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
    *("::/127", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/23", "2001:db8::/32"),
    *("3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
    "fec0::/10",  # Site-local until RFC 3879, and in use here and there.
)
_REACHABLE = _networks(
    *("192.0.0.9/32", "192.0.0.10/32", "2001:1::1/128", "2001:1::2/128", "2001:1::3/128"),
    *("2001:3::/32", "2001:4:112::/48", "2001:20::/28", "2001:30::/28"),
)
# No provider's, in any network: this host, link-local, multicast and reserved addresses, and
# where clouds tell a machine its credentials (AWS, Alibaba, Azure, Google, Oracle).
_NOBODYS = _networks(
    *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "fe80::/10", "ff00::/8"),
    *("100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    *("fd00:ec2::254/128", "fd20:ce::254/128"),
)
# All of IPv6 that is given out; the rest is reserved, but for what is in _SPECIAL.
_UNICAST = _networks("2000::/3")

# Forms of IPv6 that stand for an address of IPv4, by how many bits follow it: compatible and
# mapped (RFC 4291), translated (RFC 7915), NAT64 (RFC 6052), 6to4 (RFC 3056).
_LOOPBACK_AND_NONE = _networks("::/127")
_EMBEDDING = {
    **dict.fromkeys(_networks("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96"), 0),
    **dict.fromkeys(_networks("2002::/16"), 80),
}
_TEREDO = ipaddress.IPv6Network("2001::/32")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")


def permitted(address: str, *, private: bool) -> bool:
    """Whether a provider's name may stand for `address`; `private` admits one's own networks.

    An IPv6 address that stands for one of IPv4 is judged as that.
    """
    judged = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if any(_is_nobodys(each) for each in (judged, *_tunnelled(judged))):
        return False
    return private or _is_global(judged)


def is_own(host: str) -> bool:
    """Whether `host` says by itself, without a name server, that it is in a private network."""
    if host == "localhost":
        return True
    try:
        return not _is_global(_plain(ipaddress.ip_address(host.partition("%")[0])))
    except ValueError:
        return False


def is_literal(host: str) -> bool:
    """Whether `host` is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in each for each in networks)


def _is_nobodys(address: Address) -> bool:
    if _within(address, _NOBODYS):
        return True
    return address.version == 6 and not _within(address, _UNICAST + _SPECIAL)


def _is_global(address: Address) -> bool:
    if _is_nobodys(address):
        return False
    return not _within(address, _SPECIAL) or _within(address, _REACHABLE)


def _plain(address: Address) -> Address:
    if address.version == 4 or _within(address, _LOOPBACK_AND_NONE):
        return address
    for network, shift in _EMBEDDING.items():
        if address in network:
            return _ipv4(int(address) >> shift)
    return address


def _tunnelled(address: Address) -> Iterator[Address]:
    """The addresses of IPv4 that a packet to `address` may go to inside one's own networks."""
    number = int(address)
    if address in _TEREDO:  # RFC 4380: the server's address, and the client's inverted.
        yield from (_ipv4(number >> 64), _ipv4(~number))
    elif address in _LOCAL_NAT64:
        # RFC 6052 has a form for each length of the prefix; all but the last leave out bits
        # 64 to 71. What is read by a wrong form begins with zeros.
        shortened = number >> 64 << 56 | number & (1 << 56) - 1
        forms = [shortened >> (88 - prefix) for prefix in (48, 56, 64)]
        found = [_ipv4(form) for form in (*forms, number)]
        yield from (each for each in found if each.packed[0])


def _ipv4(number: int) -> Address:
    return ipaddress.IPv4Address(number & 0xFFFFFFFF)
