"""Which decoded pictures of a source are wanted: rate, age, hours of the week, and whether anything moves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pipeline.analytics.schedule import Schedule
from pipeline.sources.base import Picture

__all__ = ["Admission", "Cause"]

#: Why a picture is dropped, as the books call it.
Cause = Literal["rate_limited", "stale", "gated"]

_WINDOW_NS = 60_000_000_000
#: A delay that has stayed for so long is how the camera is now, and not a backlog that will go.
_SETTLED_NS = 5_000_000_000
_SECOND_NS = 1_000_000_000


class Admission:
    """Judges each decoded picture of one source before it is copied.

    All but the background of the motion gate can be known from the picture and from the one that was wanted
    before it, so a restarted process goes on as if it had never stopped. Used by one thread.

    Args:
        max_fps: At most so many pictures a second: one in each slot of that length. Slots are counted on the
            stream's own time, so jitter and lost pictures cost nothing; None for all.
        max_age_s: A picture that lags by more than the quickest of the last minute is dropped; None for
            never.
        motion: ``threshold``, ``min_area``, ``hold_s`` (see `pipeline.vision.motion.MotionGate`) and
            ``recheck_s``: while nothing moves, one picture passes so often. None: motion does not matter.
        schedule: Hours of the week in which pictures are wanted, as for
            `pipeline.analytics.schedule.Schedule`; None for always.
        timezone: Time zone of the schedule; None for this host's.
        wall_clock: UTC seconds.
        switch: Whether the source is switched on.

    Raises:
        ConfigError: the schedule or the time zone cannot be one.
    """

    def __init__(
        self,
        *,
        max_fps: float | None = None,
        max_age_s: float | None = None,
        motion: Mapping[str, float] | None = None,
        schedule: Sequence[tuple[Sequence[int], int, int]] | None = None,
        timezone: str | None = None,
        wall_clock: Callable[[], float] = time.time,
        switch: Callable[[], bool] = lambda: True,
    ) -> None:
        self._switch = switch
        self._max_fps = max_fps
        self._age = _Lag(max_age_s) if max_age_s is not None else None
        self._hours = _Hours(Schedule(schedule, timezone), wall_clock) if schedule is not None else None
        self._motion = _Motion(**motion) if motion is not None else None

    def awake(self) -> bool:
        """Whether pictures are wanted at all now; others need not even be decoded."""
        return self._switch() and (self._hours is None or self._hours.now())

    def judge(self, picture: Picture, last_pts_ns: int | None) -> Cause | None:
        """Why a picture is not wanted; None if it is.

        Args:
            picture: The picture; to be shown in order, each once.
            last_pts_ns: Presentation time of the last one that was wanted; None before the first.
        """
        late = self._age is not None and self._age.late(picture)
        if not self.awake():
            return "gated"
        if late:
            return "stale"
        if self._max_fps is not None and not _next_slot(picture.pts_ns, last_pts_ns, self._max_fps):
            return "rate_limited"
        if self._motion is not None and not self._motion.passes(picture, last_pts_ns):
            return "gated"
        return None


def _next_slot(pts_ns: int, last_pts_ns: int | None, max_fps: float) -> bool:
    """Whether a picture lies in another slot than the last one.

    A stream begins near 0, and one whose rate is just ``max_fps`` has all its pictures near a multiple of the
    slot's length: slots have those in their middle, where jitter does not carry them into the next.
    """
    if last_pts_ns is None:
        return True
    slot, last_slot = (int(ns * max_fps / _SECOND_NS + 0.5) for ns in (pts_ns, last_pts_ns))
    return slot != last_slot  # not `>`: time that has begun anew is no reason to wait


class _Lag:
    """How far pictures come behind the quickest of the last minute.

    What a camera and a network need at best is not known and not lag; what is added to it is. A delay that
    has changed for good is taken for the new best after five seconds, so that no camera is dropped for ever.
    """

    def __init__(self, max_age_s: float) -> None:
        self._max_ns = int(max_age_s * 1e9)
        self._epoch: int | None = None
        # Times of arrival with their delays, which rise: the first is the smallest of the last minute.
        self._best: deque[tuple[int, int]] = deque()
        self._late_since_ns: int | None = None

    def late(self, picture: Picture) -> bool:
        delay_ns = picture.captured_ns - picture.pts_ns
        if picture.epoch != self._epoch:
            self._epoch = picture.epoch
            self._best.clear()
        best = self._best
        while best and best[-1][1] >= delay_ns:
            best.pop()
        best.append((picture.captured_ns, delay_ns))
        while picture.captured_ns - best[0][0] > _WINDOW_NS:
            best.popleft()
        if delay_ns - best[0][1] <= self._max_ns:
            self._late_since_ns = None
            return False
        if self._late_since_ns is None:
            self._late_since_ns = picture.captured_ns
        if picture.captured_ns - self._late_since_ns < _SETTLED_NS:
            return True
        best.clear()
        best.append((picture.captured_ns, delay_ns))
        self._late_since_ns = None
        return False


class _Hours:
    """A schedule that is asked for every packet, and reckoned only when something can have changed."""

    def __init__(self, schedule: Schedule, wall_clock: Callable[[], float]) -> None:
        self._schedule = schedule
        self._clock = wall_clock
        self._from = self._until = 0.0
        self._on = False

    def now(self) -> bool:
        at = self._clock()
        if not self._from <= at < self._until:  # a clock that was set back is asked anew as well
            self._on = self._schedule.active(at)
            change = self._schedule.next_change(at)
            self._from, self._until = at, float("inf") if change is None else change
        return self._on


class _Motion:
    """The motion gate, which lets one picture pass from time to time whatever it sees."""

    def __init__(self, *, recheck_s: float = 10.0, **gate: float) -> None:
        from pipeline.vision.motion import MotionGate  # OpenCV, which most sources do not need here

        self._gate = MotionGate(**gate)
        self._recheck_ns = int(recheck_s * 1e9)
        self._epoch: int | None = None

    def passes(self, picture: Picture, last_pts_ns: int | None) -> bool:
        if picture.epoch != self._epoch:
            self._epoch = picture.epoch
            self._gate.reset()
        is_open = self._gate.open(picture.planes[0], picture.pts_ns)
        return is_open or last_pts_ns is None or picture.pts_ns - last_pts_ns >= self._recheck_ns
