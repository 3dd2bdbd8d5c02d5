"""When to run the network, and on which of the frames that wait: a policy without I/O and without a clock.

It learns two things: the rhythm of each source (time between two arrivals, and how far that is usually off),
and how long a batch of each size takes. From these it decides. A batch is as large as clears what waits the
soonest; of sizes that are about as quick the smallest is taken, since its frames are out first. So where a
batch of n takes n times as long as one frame, as on a CPU, frames go one by one.

Waiting for a frame that is not here yet pays only where one frame takes nearly as long as two. With k frames
here and m expected within d::

    go now   the k are done after s(k), the m after s(k) + s(m)
    wait     all of them are done after d + s(k + m)

It waits when that makes the sum of all these times smaller, for the m that makes it smallest, and for no
longer than half of s(k) in all. Only a source that keeps a rhythm is waited for, and only until that rhythm
says that its frame should be here: for one that is silent, never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline.messages import Message, ModelInput
from pipeline.stages.base import Stage
from pipeline.transport.base import ViewArray

__all__ = ["BatchPolicy", "BatchStage", "Decision", "Waiting"]

#: Weight of the newest of several observations.
_LEARN = 0.2
#: How far an estimate that is not used goes back, each time, to what was measured at the start: a batch
#: size that was slow once is tried again some day.
_FORGET = 0.02
#: A larger batch must be so much quicker to be taken.
_QUICKER = 1.1
#: A source unheard for so many intervals is silent.
_SILENT = 1.5
#: A gap of so many intervals tells nothing of the rhythm: the source was away.
_AWAY = 8
#: Whoever is off by more than this part of an interval keeps no rhythm.
_STEADY = 0.25
#: How many times its usual error a frame may be late and still be waited for.
_PATIENCE = 3


@runtime_checkable
class BatchStage(Stage, Protocol):
    """A stage that can take several frames at once.

    Attributes:
        batch: How many at most.
        service_ns: What a batch takes, by size, measured before the first frame, nanoseconds. A batch of
            another size is padded to the next of these, and takes as long.
    """

    batch: int
    service_ns: dict[int, int]

    def process_batch(self, inputs: Sequence[tuple[ModelInput, ViewArray]]) -> Sequence[Message]:
        """Handle several frames at once.

        Args:
            inputs: 1 to ``batch`` messages, each with the view that reads its arrays in place.

        Returns:
            One message for each input, in their order.

        Raises:
            FramewireError: one of them cannot be handled; none was, and each may be tried alone.
        """


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that waits: its source, and when it was captured (monotonic, nanoseconds)."""

    source: str
    captured_ns: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        picks: Which of the waiting frames go, as positions in what was given; empty to wait.
        until_ns: Monotonic time at which to ask again if nothing arrives before; 0 for never.
    """

    picks: tuple[int, ...] = ()
    until_ns: int = 0


@dataclass(slots=True)
class _Rhythm:
    """Arrivals of one source: the last one, the time between two, and its usual error; nanoseconds."""

    last_ns: int
    interval_ns: float = 0.0
    error_ns: float = 0.0
    seen: int = 0

    def heard(self, at_ns: int) -> None:
        gap = at_ns - self.last_ns
        if gap <= 0:
            return  # Two replicas of the stage before: the later frame came first.
        self.last_ns = at_ns
        if self.interval_ns and gap > _AWAY * self.interval_ns:
            self.interval_ns, self.error_ns, self.seen = 0.0, 0.0, 0
        elif not self.interval_ns:
            self.interval_ns, self.seen = float(gap), 1
        else:
            off = gap - self.interval_ns
            self.error_ns += _LEARN * (abs(off) - self.error_ns)
            self.interval_ns += _LEARN * off
            self.seen += 1

    def expected(self, now_ns: int, count: int) -> list[tuple[int, int]]:
        """(likely arrival, end of patience) of the next ``count`` frames; none of a source without rhythm."""
        if self.seen < 2 or self.error_ns > _STEADY * self.interval_ns:
            return []
        patience = _PATIENCE * self.error_ns
        if now_ns > self.last_ns + min(self.interval_ns + patience, _SILENT * self.interval_ns):
            return []
        dues = [self.last_ns + self.interval_ns * at for at in range(1, count + 1)]
        return [(max(now_ns, int(due + self.error_ns)), int(due + patience)) for due in dues]


class BatchPolicy:
    """Decides when a batch goes and what is in it.

    Args:
        limit: Frames in a batch at most.
        service_ns: What a batch takes, by size, measured before the first frame, nanoseconds; other sizes
            are padded to the next of these. Empty when nothing is known: then all sizes are tried.

    Raises:
        ValueError: the limit is below 1, or above the largest size that was measured.
    """

    def __init__(self, limit: int, service_ns: Mapping[int, int] | None = None) -> None:
        known = dict(service_ns or {})
        if limit < 1 or (known and max(known) < limit):
            raise ValueError(f"a batch of {limit} was never measured, only {sorted(known)}")
        self.limit = limit
        self._padded: list[int] = []
        for count in range(limit + 1):
            self._padded.append(min((size for size in known if size >= count), default=count))
        self._seed = {size: float(value) for size, value in known.items()}
        self._estimates = dict(self._seed)
        self._rhythms: dict[str, _Rhythm] = {}
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._since_ns = 0

    def arrived(self, source: str, at_ns: int) -> None:
        """A frame of that source has come, at that monotonic time in nanoseconds."""
        rhythm = self._rhythms.get(source)
        if rhythm is None:
            self._rhythms[source] = _Rhythm(at_ns)
        else:
            rhythm.heard(at_ns)

    def ended(self, source: str) -> None:
        """Nothing more comes from that source."""
        self._rhythms.pop(source, None)
        self._turns.pop(source, None)

    def served(self, count: int, service_ns: int) -> None:
        """A batch of ``count`` frames took ``service_ns`` nanoseconds."""
        size = self._padded[count]
        for other, seed in self._seed.items():
            if other != size:
                self._estimates[other] += _FORGET * (seed - self._estimates[other])
        before = self._estimates.get(size, float(service_ns))
        self._estimates[size] = before + _LEARN * (service_ns - before)

    def service_ns(self, count: int) -> int:
        """What a batch of ``count`` frames is expected to take, nanoseconds.

        A size that was never tried is thought to take no longer than the next smaller one that was: being
        wrong about that costs one batch.
        """
        size = self._padded[count]
        if size not in self._estimates:
            size = max((known for known in self._estimates if known < size), default=0)
        return int(self._estimates.get(size, 0.0))

    def decide(self, waiting: Sequence[Waiting], now_ns: int, *, more: bool = True) -> Decision:
        """Go now or wait.

        Args:
            waiting: The frames that are here.
            now_ns: Monotonic time, nanoseconds.
            more: Whether any may still come.
        """
        if not waiting:
            self._since_ns = 0
            return Decision()
        count = self._clearing(len(waiting))
        if more and count == len(waiting) < self.limit:
            until_ns = self._patience(count, now_ns)
            if until_ns > now_ns:
                self._since_ns = self._since_ns or now_ns
                return Decision((), until_ns)
        self._since_ns = 0
        return Decision(self._picks(waiting, count))

    def _clearing(self, ready: int) -> int:
        """The size of batches in which all that waits is done soonest, or about as soon."""
        sizes = range(1, min(ready, self.limit) + 1)
        clear_ns = []
        for size in sizes:
            full, rest = divmod(ready, size)
            clear_ns.append(full * self.service_ns(size) + (self.service_ns(rest) if rest else 0))
        enough = _QUICKER * min(clear_ns)
        return next(size for size, needed in zip(sizes, clear_ns, strict=True) if needed <= enough)

    def _patience(self, here: int, now_ns: int) -> int:
        """Until when to wait for more; 0 when that does not pay."""
        alone = self.service_ns(here)
        last_ns = (self._since_ns or now_ns) + alone // 2
        room = self.limit - here
        coming = sorted(
            expected
            for rhythm in self._rhythms.values()
            for expected in rhythm.expected(now_ns, room)
            if expected[0] < last_ns
        )
        best, until_ns = 0, 0
        for more, (due_ns, patience_ns) in enumerate(coming[:room], 1):
            now = here * alone + more * (alone + self.service_ns(more))
            later = (here + more) * (due_ns - now_ns + self.service_ns(here + more))
            if now - later > best:
                best, until_ns = now - later, min(patience_ns, last_ns)
        return until_ns

    def _picks(self, waiting: Sequence[Waiting], count: int) -> tuple[int, ...]:
        """Sources in turn, the one that waited longest for its turn first; of each its oldest frames."""
        queues: dict[str, deque[int]] = {}
        for at in sorted(range(len(waiting)), key=lambda at: waiting[at].captured_ns):
            queues.setdefault(waiting[at].source, deque()).append(at)
        picks: list[int] = []
        # Sorted is stable: among those that never had a turn, the oldest frame is first.
        order = deque(sorted(queues, key=lambda source: self._turns.get(source, 0)))
        while len(picks) < count:
            source = order.popleft()
            picks.append(queues[source].popleft())
            self._turn += 1
            self._turns[source] = self._turn
            if queues[source]:
                order.append(source)
        return tuple(picks)
