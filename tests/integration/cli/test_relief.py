"""Who has how many connections, by the kernel's tables."""

import asyncio
import ipaddress
import socket

import pytest

from cli.relief import connections_by_network


@pytest.mark.parametrize(
    ("listen", "source", "network"),
    [
        ("127.0.0.1", "127.0.0.9", "127.0.0.9/32"),
        ("::1", "::1", "::/64"),
        # A socket for both families knows IPv4's addresses as mapped ones.
        ("::", "127.0.0.9", "127.0.0.9/32"),
    ],
)
async def test_open_connections_are_counted_by_network(listen: str, source: str, network: str):
    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    dualstack = listen == "::"
    listener = socket.create_server((listen, 0), family=family, dualstack_ipv6=dualstack)
    server = await asyncio.start_server(stay, sock=listener)
    port = listener.getsockname()[1]
    target = "127.0.0.1" if "." in source else "::1"
    opened = [await asyncio.open_connection(target, port, local_addr=(source, 0)) for _ in range(3)]
    expected = ipaddress.ip_network(network)
    assert connections_by_network(frozenset({port})) == {expected: 3}
    assert not connections_by_network(frozenset({0}))
    for _, writer in opened[1:]:
        writer.close()
        await writer.wait_closed()
    assert connections_by_network(frozenset({port})) == {expected: 1}
    opened[0][1].close()
    server.close()
