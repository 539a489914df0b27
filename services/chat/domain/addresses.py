"""Which addresses a provider may have: nobody's key is to be sent into a network by mistake."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Where clouds tell a machine its credentials, besides the link-local 169.254.169.254.
_METADATA = frozenset({ipaddress.ip_address(each) for each in ("100.100.100.200", "fd00:ec2::254")})


def permitted(address: str, *, private: bool) -> bool:
    """Whether a provider's name may stand for `address`; `private` admits one's own networks.

    An IPv6 address that stands for one of IPv4 is judged as that.
    """
    judged = _plain(ipaddress.ip_address(address.partition("%")[0]))
    if judged.is_multicast or judged.is_unspecified or judged.is_link_local or judged in _METADATA:
        return False
    return private or judged.is_global


def is_own(host: str) -> bool:
    """Whether `host` says by itself, without a name server, that it is in a private network."""
    if host == "localhost":
        return True
    try:
        return not _plain(ipaddress.ip_address(host)).is_global
    except ValueError:
        return False


def is_literal(host: str) -> bool:
    """Whether `host` is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _plain(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
