"""Requests without end, and which of them were answered."""

import asyncio
import time
from dataclasses import dataclass, field

import aiohttp

from tests.mesh.running import Account, Up


@dataclass
class Load:
    """Whole replies asked for again and again: which were acknowledged, and when one failed last."""

    up: Up
    account: Account
    acknowledged: list[str] = field(default_factory=list)
    failed_at: float = 0.0
    succeeded_at: float = 0.0

    async def ask(self) -> None:
        body = {"message": "Hi", "model": "gpt-4o-mini", "store": False}
        while True:
            try:
                answer = await self.up.call("POST", "/chat", body, self.account.key)
            except (OSError, aiohttp.ClientError):
                self.failed_at = time.monotonic()
                continue
            if answer.status == 200:
                self.acknowledged.append(answer.body["generation_id"])
                self.succeeded_at = time.monotonic()
            else:
                self.failed_at = time.monotonic()
                await asyncio.sleep(0.02)
