"""Histograms of latency: percentiles that can be merged, not averages that hide the tail."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["Histogram", "Latencies"]

_PER_OCTAVE = 32  # 2.2 % resolution
_BUCKETS = 36 * _PER_OCTAVE  # 1 us to about 19 hours


class Histogram:
    """Counts of durations in logarithmic buckets, each 2.2 % wide."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, duration_ns: int) -> None:
        """Count one duration in nanoseconds; below one microsecond counts as one."""
        at = int(math.log2(max(duration_ns, 1000) / 1000) * _PER_OCTAVE)
        self._counts[min(at, _BUCKETS - 1)] += 1

    def merge(self, counts: dict[int, int]) -> None:
        """Add what another histogram's `counts` gave."""
        for bucket, count in counts.items():
            self._counts[bucket] += count

    def counts(self) -> dict[int, int]:
        """The buckets that are not empty, as plain data."""
        return {int(at): int(self._counts[at]) for at in np.flatnonzero(self._counts)}

    def total(self) -> int:
        """How many durations were counted."""
        return int(self._counts.sum())

    def percentile_ms(self, percent: float) -> float:
        """The duration, in milliseconds, that ``percent`` of all do not exceed; 0 when there are none."""
        total = self.total()
        if not total:
            return 0.0
        rank = max(1, math.ceil(total * percent / 100))
        at = int(np.searchsorted(np.cumsum(self._counts), rank))
        return round(2 ** ((at + 0.5) / _PER_OCTAVE) / 1000, 3)

    def summary(self) -> dict[str, float]:
        """``p50``, ``p95`` and ``p99`` in milliseconds."""
        return {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}


class Latencies:
    """Histograms by name, made on first use: ``<stage>.wait``, ``<stage>.service`` and ``total``."""

    def __init__(self) -> None:
        self.by_name: dict[str, Histogram] = {}

    def add(self, name: str, duration_ns: int) -> None:
        """Count one duration."""
        histogram = self.by_name.get(name)
        if histogram is None:
            histogram = self.by_name[name] = Histogram()
        histogram.add(duration_ns)

    def counts(self) -> dict[str, dict[int, int]]:
        """All as plain data."""
        return {name: histogram.counts() for name, histogram in self.by_name.items()}

    def merge(self, counts: dict[str, dict[int, int]]) -> None:
        """Add what another's `counts` gave."""
        for name, buckets in counts.items():
            self.by_name.setdefault(name, Histogram()).merge(buckets)
