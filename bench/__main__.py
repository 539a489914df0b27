"""Measures khesht and a FastAPI program under the same loads: `make bench`.

Both stand before the same mock provider, and take turns, so that a noisy machine
disturbs both alike. What counts is CPU time, all processes of each together.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.processes import cpu_seconds, pss_megabytes
from mesh.local.ports import free_ports

_MODELS = Path(__file__).with_name("models.toml")
_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


@dataclass(frozen=True)
class Load:
    """One kind of load: `unit` is what its cost is divided by.

    `limit` is what a unit may cost khesht, in µs of CPU, on a machine where it costs a
    FastAPI program `reference`.
    """

    name: str
    path: str
    model: str
    at_once: int
    requests: int
    unit: str
    limit: int
    reference: int


LOADS = (
    Load(
        "unary requests, 20 tokens",
        "/chat/conversation",
        "short",
        32,
        2_000,
        "requests",
        1_200,
        1_218,
    ),
    Load(
        "streams of 100 tokens at once", "/api/v1/chat/stream", "burst", 32, 600, "tokens", 20, 102
    ),
    Load(
        "100 streams at 10 ms a token", "/api/v1/chat/stream", "paced", 100, 300, "tokens", 80, 120
    ),
)


@dataclass(frozen=True)
class Target:
    """Something to load: where, with which key, and the processes it is made of."""

    name: str
    url: str
    key: str
    processes: Mapping[str, int]


@dataclass(frozen=True)
class Result:
    """What one run cost, in µs of CPU per unit by process, and how it went."""

    micros: Mapping[str, float]
    first_p50: float
    per_second: float

    @property
    def total(self) -> float:
        """µs of all processes together."""
        return sum(self.micros.values())


def main() -> None:
    """Runs every load against both, and prints the medians and their ratios."""
    provider_port, fastapi_port = free_ports(2)
    provider = f"http://127.0.0.1:{provider_port}/v1"
    with contextlib.ExitStack() as stack:
        stack.enter_context(_program("bench.provider", provider_port))
        khesht = stack.enter_context(_khesht(provider))
        peer = stack.enter_context(_fastapi(provider, fastapi_port))
        time.sleep(1)
        print(f"idle memory, MB (PSS): {_memory(khesht)}")
        direct = Target("provider alone", provider.removesuffix("/v1"), "", {})
        for load in LOADS:
            _compare(load, khesht, peer, direct)
        with _khesht(provider, JOURNAL="false") as without:
            _compare_journal(LOADS[-1], khesht, without)
        print(f"memory after the load, MB (PSS): {_memory(khesht)}")
        print(f"memory of the FastAPI program, MB (PSS): {_memory(peer)}")


def _compare(load: Load, khesht: Target, peer: Target, direct: Target) -> None:
    for target in (khesht, peer):
        _run(load, target, warm_up=True)
    ours, theirs, provider = [], [], []
    for _ in range(_ROUNDS):
        ours.append(_run(load, khesht))
        theirs.append(_run(load, peer))
        provider.append(_run(load, direct))
    middle = _median(ours)
    print(f"\n{load.name} ({load.requests} requests, {load.at_once} at once)")
    for name, result in (("khesht", middle), ("FastAPI + openai", _median(theirs))):
        added = (result.first_p50 - _median(provider).first_p50) * 1000
        print(
            f"  {name:18} {result.total:8.1f} µs CPU per {load.unit[:-1]:8}"
            f" {result.per_second:9.0f} {load.unit}/s"
            f"   first byte {added:+.1f} ms over the provider's, p50"
        )
    print("    " + ", ".join(f"{name} {cost:.1f}" for name, cost in middle.micros.items()))
    ratio = middle.total / _median(theirs).total
    scaled = ratio * load.reference
    print(f"  khesht / FastAPI   {ratio:8.2f}")
    print(
        f"  at the speed of a machine where FastAPI costs {load.reference} µs: {scaled:.0f} µs"
        f" (limit {load.limit})"
    )


def _compare_journal(load: Load, khesht: Target, without: Target) -> None:
    """What it costs to write text down while it comes: at most 15 % and 5 ms are allowed."""
    _run(load, without, warm_up=True)
    rounds = [(_run(load, khesht), _run(load, without)) for _ in range(_ROUNDS)]
    on, off = (_median([both[side] for both in rounds]) for side in (0, 1))
    print(f"\n{load.name}, with the journal and without")
    print(f"  {on.total:.1f} and {off.total:.1f} µs CPU per token: {on.total / off.total:.2f}")
    print(f"  first byte {(on.first_p50 - off.first_p50) * 1000:+.1f} ms, p50")


def _run(load: Load, target: Target, *, warm_up: bool = False) -> Result:
    path = load.path if target.processes else "/v1/chat/completions"
    requests = max(load.requests // 10, load.at_once) if warm_up else load.requests
    arguments = (target.url + path, target.key, load.model, str(load.at_once), str(requests))
    before = cpu_seconds(target.processes)
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", *arguments], check=True, stdout=subprocess.PIPE
    )
    said: dict[str, Any] = json.loads(done.stdout)
    if target.processes:
        time.sleep(0.5)  # What is written behind the answers is part of their cost.
    after = cpu_seconds(target.processes)
    count = said[load.unit]
    micros = {name: (after[name] - before[name]) / count * 1e6 for name in after}
    return Result(micros, said["first_p50"], count / said["seconds"])


def _median(results: list[Result]) -> Result:
    return sorted(results, key=lambda result: (result.total, result.first_p50))[len(results) // 2]


def _memory(target: Target) -> str:
    each = pss_megabytes(target.processes)
    parts = ", ".join(f"{name} {size:.0f}" for name, size in each.items())
    return f"{sum(each.values()):.0f} ({parts})"


@contextlib.contextmanager
def _program(module: str, port: int, **environment: str) -> Iterator[int]:
    command = [sys.executable, "-m", module, str(port)]
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _fastapi(provider: str, port: int) -> Iterator[Target]:
    key = "a key of the bench"
    settings = {"OPENAI_BASE_URL": provider, "OPENAI_API_KEY": "sk-bench", "BENCH_KEY": key}
    with _program("bench.fastapi_app", port, **settings) as pid:
        _wait_for(f"http://127.0.0.1:{port}/openapi.json")
        yield Target("FastAPI + openai", f"http://127.0.0.1:{port}", key, {"fastapi": pid})


@contextlib.contextmanager
def _khesht(provider: str, **more: str) -> Iterator[Target]:
    gateway, grpc = free_ports(2)
    with tempfile.TemporaryDirectory() as home:
        settings = {
            "KHESHT_HOME": home,
            "GATEWAY_PORT": str(gateway),
            "GRPC_PORT": str(grpc),
            "OPENAI_BASE_URL": provider,
            "OPENAI_API_KEY": "sk-bench",
            "MODELS_FILE": str(_MODELS),
            **more,
        }
        environment = {**os.environ, **settings}
        command = [sys.executable, "-m", "cli.main"]
        up = subprocess.Popen([*command, "up"], env=environment, stdout=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{gateway}"
            _wait_for(f"{url}/.well-known/jwks.json")
            told = subprocess.run(
                [*command, "status", "--json"], env=environment, check=True, stdout=subprocess.PIPE
            )
            processes = {row["name"]: row["pid"] for row in json.loads(told.stdout)}
            yield Target("khesht", url, _new_key(url), {**processes, "up": up.pid})
        finally:
            up.terminate()
            up.wait()


def _new_key(url: str) -> str:
    account = {"email": "bench@example.com", "password": "password123"}
    _post(f"{url}/auth/register", account)
    token = _post(f"{url}/auth/login", account)["access_token"]
    key = {"name": "bench", "rate_limit_per_minute": 100_000}
    return str(_post(f"{url}/api/v1/api-keys", key, token)["key"])


def _post(url: str, body: dict[str, Any], token: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {token}"} if token else {}
    )
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        told: dict[str, Any] = json.load(answer)
        return told


def _wait_for(url: str, within: float = 60) -> None:
    limit = time.monotonic() + within
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
