"""Presentation times that never go back, made from what containers say."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["Timeline"]

#: A longer step back is a restart of the clock (joined recordings, a wrapped counter), not disorder.
_RESTART_NS = 1_000_000_000


class Timeline:
    """Turns the timestamps of decoded frames into nanoseconds from the start of the stream.

    Which of a frame's two timestamps to believe is decided as FFmpeg's ``guess_correct_pts`` does: the
    kind that has gone back less often. Some recorders write decoding times where presentation times belong.

    Args:
        time_base: Seconds per tick.
        start: Tick at which the stream starts.
        interval_ns: Nominal time between frames, for frames without a timestamp.

    Attributes:
        last_ns: Time of the last frame; None before the first.
        adjusted: How many times had to be corrected so that none goes back.
    """

    def __init__(self, time_base: Fraction, start: int, interval_ns: int) -> None:
        self._time_base = time_base
        self._start = start
        self._interval_ns = interval_ns
        self._offset_ns = 0
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._faulty_pts = 0
        self._faulty_dts = 0
        self.last_ns: int | None = None
        self.adjusted = 0

    def nanoseconds(self, ticks: int) -> int:
        """Nanoseconds from the start of the stream, uncorrected."""
        return round((ticks - self._start) * self._time_base * 1_000_000_000)

    def next(self, pts: int | None, dts: int | None) -> int:
        """Time in nanoseconds of the next frame, given its presentation and decoding ticks."""
        ticks = self._choose(pts, dts)
        last = self.last_ns
        if ticks is None:
            time_ns = 0 if last is None else last + self._interval_ns
        else:
            time_ns = self.nanoseconds(ticks) + self._offset_ns
        if last is not None and time_ns < last:
            self.adjusted += 1
            if last - time_ns > _RESTART_NS:
                self._offset_ns += last + self._interval_ns - time_ns
                time_ns = last + self._interval_ns
            else:
                time_ns = last
        self.last_ns = max(0, time_ns)
        return self.last_ns

    def _choose(self, pts: int | None, dts: int | None) -> int | None:
        if pts is not None:
            self._faulty_pts += self._last_pts is not None and pts <= self._last_pts
            self._last_pts = pts
        if dts is not None:
            self._faulty_dts += self._last_dts is not None and dts <= self._last_dts
            self._last_dts = dts
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return pts
        return dts
