"""CPU time and memory of processes and all that they started, from /proc."""

from collections.abc import Mapping

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
    return own + sum(_cpu(child, named) for child in process.children() if child.pid not in named)


def _pss(process: psutil.Process, named: set[int]) -> float:
    own = process.memory_full_info().pss / 1e6
    return own + sum(_pss(child, named) for child in process.children() if child.pid not in named)
