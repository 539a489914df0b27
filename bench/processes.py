"""CPU time and memory of processes and all that they started, from /proc."""

import contextlib
from collections.abc import Callable, Mapping

import psutil


def cpu_seconds(roots: Mapping[str, int]) -> dict[str, float]:
    """User and system time until now, by name, each with its descendants that have no name."""
    named = set(roots.values())
    return {name: _cpu(psutil.Process(pid), named) for name, pid in roots.items()}


def pss_megabytes(roots: Mapping[str, int]) -> dict[str, float]:
    """Proportional memory by name, in MB of 10^6 bytes, descendants as above."""
    named = set(roots.values())
    return {name: _pss(psutil.Process(pid), named) for name, pid in roots.items()}


def _cpu(process: psutil.Process, named: set[int]) -> float:
    times = process.cpu_times()
    # Children that have ended count too: PostgreSQL's backends come and go.
    own = times.user + times.system + times.children_user + times.children_system
    return own + _below(_cpu, process, named)


def _pss(process: psutil.Process, named: set[int]) -> float:
    return process.memory_full_info().pss / 1e6 + _below(_pss, process, named)


def _below(
    measured: Callable[[psutil.Process, set[int]], float], process: psutil.Process, named: set[int]
) -> float:
    total = 0.0
    for child in process.children():
        if child.pid not in named:
            with contextlib.suppress(psutil.NoSuchProcess):  # It ended while it was looked at.
                total += measured(child, named)
    return total
