"""How many threads an inference session gets: from the cores that this process may really use.

A container's share of the machine is what counts, not the machine: the cores that the scheduler allows, and
the quota of its control group (``cpu.max`` of version 2, ``cpu.cfs_quota_us`` of version 1, in Linux'
``admin-guide/cgroup-v2.rst``), whichever is less.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "Share", "threads_for", "usable_cores"]


@dataclass(frozen=True)
class Cores:
    """What this process may use.

    Attributes:
        count: Cores; with a quota a fraction is possible.
        why: What limits them, in words.
    """

    count: float
    why: str


@dataclass(frozen=True)
class Share:
    """What one session gets.

    Attributes:
        threads: Threads of one inference.
        why: The reason, in one sentence.
    """

    threads: int
    why: str


def usable_cores(root: Path = Path("/")) -> Cores:
    """The cores that this process may use.

    Args:
        root: Where ``proc`` and ``sys`` are mounted.
    """
    whole = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    cores = Cores(allowed, f"{allowed} of {whole} cores are allowed" if allowed < whole else f"{whole} cores")
    quotas = list(_quotas(root))
    if quotas and min(quotas) < allowed:
        return Cores(min(quotas), f"the control group's quota is {min(quotas):g} of {allowed} cores")
    return cores


def threads_for(threads: int | None, *, replicas: int = 1, cores: Cores | None = None) -> Share:
    """How many threads one session gets, and why.

    One thread a session is the rule where several sessions share the cores: two sessions of one thread do
    more frames than one session of two. A single session gets the cores that are left after one for the
    stages around it, and no more than four: small networks gain nothing from more.

    Args:
        threads: What the user asked for; None for nothing.
        replicas: Sessions that run beside each other.
        cores: What may be used; asked for here when left out.

    Raises:
        ValueError: ``threads`` or ``replicas`` is below 1.
    """
    if replicas < 1 or (threads is not None and threads < 1):
        raise ValueError("threads and replicas count from 1")
    cores = cores or usable_cores()
    sessions = "1 session" if replicas == 1 else f"{replicas} sessions"
    if threads is not None:
        wanted = threads * replicas
        over = f", {wanted} threads on {cores.count:g} cores" if wanted > cores.count else ""
        return Share(threads, f"{threads} as asked for, in {sessions}{over} ({cores.why})")
    if replicas > 1:
        return Share(
            1, f"1 each in {sessions}: frames beside each other gain more than threads ({cores.why})"
        )
    spare = max(1, min(_MOST, math.floor(cores.count) - 1))
    return Share(spare, f"{spare} in 1 session: the cores but one, at most {_MOST} ({cores.why})")


_MOST = 4


def _quotas(root: Path) -> Iterator[float]:
    """Every quota that applies, in cores: those of our group and of all groups around it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        parts = [part for part in path.split("/") if part and part != ".."]
        if not controllers:
            base = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            base = root / "sys/fs/cgroup/cpu"
        else:
            continue
        for depth in range(len(parts) + 1):
            quota = _quota_in(base.joinpath(*parts[:depth]))
            if quota is not None:
                yield quota


def _quota_in(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = (float(word) for word in words)
    except ValueError:  # "max", or there is no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
