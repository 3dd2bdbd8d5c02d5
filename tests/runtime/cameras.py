"""Cameras before one server, simulated: events in order of time, no clock and no threads."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.models.base import batch_sizes
from pipeline.runtime.batching import BatchPolicy, Decision, Waiting
from tests.helpers import MS

__all__ = ["Run", "Service", "cpu", "gpu", "measured", "policy_of"]

Service = Callable[[int], float]


def gpu(count: int) -> float:
    """Milliseconds of a batch that costs 20 to start and 2 for each frame."""
    return 20 + 2 * count


def cpu(count: int) -> float:
    """Milliseconds where nothing is gained."""
    return 15.0 * count


def measured(service: Service, limit: int) -> dict[int, int]:
    return {size: int(service(size) * MS) for size in batch_sizes(limit)}


def policy_of(service: Service, limit: int = 8) -> BatchPolicy:
    return BatchPolicy(limit, measured(service, limit))


@dataclass
class Run:
    """Live cameras before one server: each keeps its newest frame, and few are under way at once.

    ``policy`` is None to wait for a full batch. Times are milliseconds outside, nanoseconds inside.
    """

    sources: Sequence[tuple[str, float, float]]
    service: Service
    policy: BatchPolicy | None
    limit: int = 8
    more: bool = True
    seconds: float = 20.0
    jitter_ms: float = 0.5
    seed: int = 1
    latencies_ms: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    admitted: int = 0

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self._coming = sorted(
            (int((phase + 1000 * n / fps + abs(rng.gauss(0, self.jitter_ms))) * MS), name)
            for name, fps, phase in self.sources
            for n in range(math.ceil(self.seconds * fps))
        )
        self._at = 0
        self._newest: dict[str, int] = {}
        self._turns: dict[str, int] = {}
        self._waiting: list[Waiting] = []
        self._busy = 0

    @property
    def mean(self) -> float:
        return statistics.mean(self.latencies_ms)

    @property
    def p99(self) -> float:
        return sorted(self.latencies_ms)[int(0.99 * len(self.latencies_ms))]

    def play(self) -> Run:
        now, since = 0, None
        while True:
            self._until(now)
            due = self._coming[self._at][0] if self._at < len(self._coming) else None
            if not self._waiting:
                if due is None:
                    return self
                now = due
                continue
            decision = self._decide(now, due)
            if not decision.picks:
                since = now if since is None else since
                now = min(decision.until_ns, math.inf if due is None else due)  # type: ignore[assignment]
                continue
            if self.policy is not None:
                alone = self.policy.service_ns(len(decision.picks)) / MS
                self.waits.append(((now - since) / MS if since is not None else 0.0, alone))
            since, now = None, self._serve(decision.picks, now)

    def _decide(self, now: int, due: int | None) -> Decision:
        if self.policy is not None:
            return self.policy.decide(self._waiting, now, more=self.more)
        if len(self._waiting) < self.limit and due is not None:
            return Decision((), due)
        return Decision(tuple(range(min(self.limit, len(self._waiting)))))

    def _serve(self, picks: Sequence[int], now: int) -> int:
        count = len(picks)
        padded = next(size for size in batch_sizes(self.limit) if size >= count)
        end = now + int(self.service(padded) * MS)
        batch = [self._waiting[at] for at in picks]
        self._waiting = [w for at, w in enumerate(self._waiting) if at not in picks]
        self._busy = count
        self._until(end)
        self._busy = 0
        self._admit(end)
        if self.policy is not None:
            self.policy.served(count, end - now)
        self.sizes.append(count)
        for frame in batch:
            self.latencies_ms.append((end - frame.captured_ns) / MS)
            self.served[frame.source] = self.served.get(frame.source, 0) + 1
        return end

    def _until(self, now: int) -> None:
        while self._at < len(self._coming) and self._coming[self._at][0] <= now:
            at, source = self._coming[self._at]
            self._at += 1
            self.dropped += source in self._newest
            self._newest[source] = at
            self._admit(at)

    def _admit(self, now: int) -> None:
        for source in sorted(self._newest, key=lambda name: self._turns.get(name, 0)):
            if len(self._waiting) + self._busy > self.limit:
                return
            self._turns[source] = now
            self._waiting.append(Waiting(source, self._newest.pop(source)))
            self.admitted += 1
            if self.policy is not None:
                self.policy.arrived(source, now)
