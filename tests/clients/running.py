"""Runs programs of clients against a mesh."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from tests.mesh.running import Account, Up


async def run(
    command: tuple[str | Path, ...], up: Up, account: Account, folder: Path, **more: str
) -> str:
    """What `command` prints when it is run in `folder`; it has to succeed within two minutes."""
    home = {"HOME": str(folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    told = {"KHESHT_URL": up.url, "KHESHT_API_KEY": account.key}
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=home | told | more,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(120):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode() + complaints.decode()
    return output.decode()


async def told(
    command: tuple[str | Path, ...], up: Up, account: Account, folder: Path, **more: str
) -> Any:
    """The JSON in the last line that it prints."""
    return json.loads((await run(command, up, account, folder, **more)).splitlines()[-1])
