"""Keeps room at the edge for new connections, by what its clients hold open.

Envoy 1.40 counts connections, but lets their number trigger nothing, and has no limit for each
network address. It watches files, and this module writes them: how many connections are used, by
which idle ones go sooner, and which addresses have too many, whose new ones are closed.
"""

import asyncio
import contextlib
import ipaddress
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mesh.local.files import write_private
from mesh.local.ready import http_get

_INTERVAL_S = 0.25
# From this pressure on the edge counts as overloaded, and for so long after it.
_OVERLOADED = 0.9
_OVERLOADED_S = 10.0
# An address that had too many connections gets no new ones for so long.
_CROWDED_S = 30.0
_PRESSURE_STAT = "overload.envoy.resource_monitors.global_downstream_max_connections.pressure"
# One host has as many IPv6 addresses as it likes below one prefix.
_IPV6_PREFIX = 64
_SOCKETS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = b"01"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ReliefFiles:
    """The files that Envoy watches."""

    pressure: Path
    crowded: Path

    def clear(self) -> None:
        """Writes them for an edge without connections."""
        self.tell_pressure(0)
        self.tell_crowded(())

    def tell_pressure(self, used: float) -> None:
        """What part of all connections is used, 0 to 1."""
        write_private(self.pressure, str(used).encode())

    def tell_crowded(self, networks: Iterable[Network]) -> None:
        """From which networks Envoy takes no new connections, as a filter's configuration (ECDS)."""
        denied = [
            {
                "direct_remote_ip": {
                    "address_prefix": str(network.network_address),
                    "prefix_len": network.prefixlen,
                }
            }
            for network in networks
        ]
        policy = {"permissions": [{"any": True}], "principals": denied}
        rbac = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",
            "stat_prefix": "crowded",
            "rules": {"action": "DENY", "policies": {"crowded": policy} if denied else {}},
        }
        extension = {
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "crowded",
            "typed_config": rbac,
        }
        write_private(self.crowded, json.dumps({"resources": [extension]}).encode())


@dataclass
class Relief:
    """Looks at the edge's connections four times a second.

    Envoy takes `connections` at once on `ports`, `per_address` of them from one network address
    (IPv6: one /64). `admin` is the socket of its administration.
    """

    admin: Path
    files: ReliefFiles
    ports: frozenset[int]
    connections: int
    per_address: int
    report: Callable[[str], None]
    _overloaded_at: float = field(init=False, default=-_OVERLOADED_S)
    _crowded: dict[Network, float] = field(init=False, default_factory=dict)
    _pressure: float = field(init=False, default=0)

    @property
    def overloaded(self) -> bool:
        """Whether there was hardly room for new connections in the last 10 seconds."""
        return _now() - self._overloaded_at < _OVERLOADED_S

    async def run(self) -> None:
        """Goes on until it is cancelled. While Envoy does not answer, nothing changes."""
        while True:
            with contextlib.suppress(OSError, ValueError, TimeoutError):
                await self._look()
            await asyncio.sleep(_INTERVAL_S)

    async def _look(self) -> None:
        used = await self._used()
        if used >= _OVERLOADED:
            if not self.overloaded:
                self.report("the edge has hardly room for more connections")
            self._overloaded_at = _now()
        if used != self._pressure:
            self.files.tell_pressure(used)
            self._pressure = used
        # Envoy rounds down to whole percents.
        if (used + 0.01) * self.connections > self.per_address or self._crowded:
            self._find_crowds()

    def _find_crowds(self) -> None:
        before = set(self._crowded)
        for network, count in connections_by_network(self.ports).items():
            if count >= self.per_address:
                if network not in before:
                    self.report(f"{network} has {count} connections; no more are taken from it")
                self._crowded[network] = _now() + _CROWDED_S
        self._crowded = {each: until for each, until in self._crowded.items() if until > _now()}
        if set(self._crowded) != before:
            self.files.tell_crowded(self._crowded)

    async def _used(self) -> float:
        """What part of all connections is used. Raises OSError, ValueError, TimeoutError."""
        async with asyncio.timeout(1):
            told = await http_get(self.admin, f"/stats?filter={_PRESSURE_STAT}")
        percent = re.search(r"pressure: (\d+)", told)
        if percent is None:
            raise ValueError("Envoy does not tell its pressure")
        return min(1.0, int(percent[1]) / 100)


def connections_by_network(ports: frozenset[int]) -> Counter[Network]:
    """How many connections to local `ports` are open from each network address (IPv6: /64).

    Source: the tables of sockets in proc_net(5). Raises OSError where there are none.
    """
    ours = {b"%04X" % port for port in ports}
    remotes: Counter[bytes] = Counter()
    for table in _SOCKETS:
        for line in table.read_bytes().splitlines()[1:]:
            _, local, remote, state, *_ = line.split(maxsplit=4)
            if state == _ESTABLISHED and local.rpartition(b":")[2] in ours:
                remotes[remote.rpartition(b":")[0]] += 1
    networks: Counter[Network] = Counter()
    for remote, count in remotes.items():
        networks[_network(remote)] += count
    return networks


def _network(written: bytes) -> Network:
    """Of an address as the kernel writes it: words of 32 bits in the machine's order."""
    words = [int(written[at : at + 8], 16) for at in range(0, len(written), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return ipaddress.IPv4Network(packed)
    address = ipaddress.IPv6Address(packed)
    if address.ipv4_mapped:
        return ipaddress.IPv4Network(address.ipv4_mapped)
    return ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False)


def _now() -> float:
    return asyncio.get_running_loop().time()
