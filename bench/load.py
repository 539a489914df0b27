"""Sends one kind of load and prints what came of it, as JSON.

Run as `python -m bench.load URL KEY MODEL STREAMS REQUESTS`: REQUESTS requests,
STREAMS at a time. A URL that ends in `/stream` is read as events.
"""

import asyncio
import json
import statistics
import sys
import time

import aiohttp
import uvloop

from bench.provider import TOKEN


async def _one(session: aiohttp.ClientSession, url: str, body: bytes, firsts: list[float]) -> int:
    began = time.perf_counter()
    text = b""
    async with session.post(url, data=body) as response:
        async for data in response.content.iter_any():
            if not text:
                firsts.append(time.perf_counter() - began)
            text += data
        if response.status != 200:
            raise SystemExit(f"{url} answered {response.status}: {text[:300]!r}")
    # Each answer holds its tokens twice where it ends with the full text.
    whole = text.count(b'"full_text"') + text.count(b'"done": true')
    return text.count(TOKEN.encode()) // (2 if whole else 1)


async def _run(url: str, key: str, model: str, at_once: int, requests: int) -> None:
    ask = {"model": model, "messages": [{"role": "user", "content": "Tell me something."}]}
    if "/v1/chat/completions" in url:
        ask |= {"stream": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    firsts: list[float] = []
    tokens = 0
    left = iter(range(requests))
    connector = aiohttp.TCPConnector(limit=0)

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for _ in left:
            got = await _one(session, url, json.dumps(ask).encode(), firsts)
            tokens += got

    began = time.perf_counter()
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(worker(session) for _ in range(at_once)))
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - began,
                "requests": requests,
                "tokens": tokens,
                "first_p50": statistics.median(firsts),
            }
        )
    )


if __name__ == "__main__":
    url, key, model, at_once, requests = sys.argv[1:]
    uvloop.run(_run(url, key, model, int(at_once), int(requests)))
