"""The times of a live stream: presentation time that never goes back, the camera's clock, the backlog.

Pure logic: times come in as numbers, nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

__all__ = ["Backlog", "CameraClock", "PtsClock"]

_SECOND_NS = 1_000_000_000
#: A smaller step back is disorder; a larger one, or a leap ahead of the arrival by so much, is a new start.
_RESTART_NS = _SECOND_NS
_LEAP_NS = 5 * _SECOND_NS


class PtsClock:
    """Turns the timestamps of pictures into nanoseconds from 0 that never go back.

    A stream whose timestamps start anew (the camera restarted its encoder, a counter wrapped, its clock was
    set) goes on where it was, later by the time that passed until the next picture came.

    Args:
        interval_ns: Nominal time between pictures, for those without a timestamp.

    Attributes:
        last_ns: Time of the last picture; None before the first.
        restarts: How often the timestamps started anew.
    """

    def __init__(self, interval_ns: int = 40_000_000) -> None:
        self.interval_ns = interval_ns
        self.last_ns: int | None = None
        self.restarts = 0
        self._offset_ns: int | None = None
        self._arrival_ns = 0

    def next(self, raw_ns: int | None, arrival_ns: int) -> int:
        """Time of the next picture.

        Args:
            raw_ns: Its own timestamp in nanoseconds; None when it has none.
            arrival_ns: Monotonic time at which it came.
        """
        last = self.last_ns
        passed_ns = max(arrival_ns - self._arrival_ns, 0)
        self._arrival_ns = arrival_ns
        follows_ns = 0 if last is None else last + self.interval_ns
        if raw_ns is None:
            time_ns = follows_ns
        else:
            if self._offset_ns is None:
                self._offset_ns = follows_ns - raw_ns
            time_ns = raw_ns + self._offset_ns
        if last is not None:
            step_ns = time_ns - last
            if step_ns < -_RESTART_NS or step_ns > passed_ns + _LEAP_NS:
                self.restarts += 1
                time_ns = last + max(self.interval_ns, passed_ns)
                if raw_ns is not None:
                    self._offset_ns = time_ns - raw_ns
            time_ns = max(time_ns, last)
        self.last_ns = time_ns
        return time_ns


class CameraClock:
    """The camera's wall clock, from the sender reports (RTCP) that tie its timestamps to UTC.

    Each packet brings the difference of UTC and timestamp as the last report gave it. A single outlier at a
    new report is not followed; a clock that was set is, two packets later. The camera's clock is believed
    even when it is hours off: that shows in `offset_s`.
    """

    #: The least delayed report of each such window counts, for an hour.
    _WINDOW_S = 10.0
    _WINDOWS = 360
    #: A rate is worth saying when it was measured over so long.
    _SPAN_S = 60.0
    #: Reports that differ by so much are of a clock that was set between them.
    _STEP_NS = 500_000_000
    _AGREE = 3
    #: What counts as the way at its best is that of the last ten minutes; the clocks drift meanwhile.
    _RECENT_WINDOWS = 60
    #: Packets that come so many in a row only when they are waited for are all there is.
    _WAITS = 10
    #: Less than this is the jitter of a network.
    _LAG_S = 0.5

    def __init__(self) -> None:
        self._lag_s = 0.0
        self._best_before_s = -math.inf
        self._waits = 0
        self._recent: deque[int] = deque(maxlen=self._AGREE)
        self._base_ns: int | None = None
        self._windows: deque[tuple[float, float]] = deque(maxlen=self._WINDOWS)
        self._window_s = 0.0
        self._best: tuple[float, float] | None = None

    @property
    def offset_s(self) -> float | None:
        """Camera's clock minus this host's, seconds, too small by the least delay; None while unknown."""
        latest = [point[1] for point in (*list(self._windows)[-1:], *([self._best] if self._best else []))]
        return max(latest, default=None)

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than this host's the camera's clock runs, in millionths; None within a minute.

        The median of the slopes over all pairs of windows (Theil and Sen), which outliers do not move.
        """
        points = list(self._windows)
        if len(points) < 2 or points[-1][0] - points[0][0] < self._SPAN_S:
            return None
        slopes = [
            (late[1] - early[1]) / (late[0] - early[0])
            for number, early in enumerate(points)
            for late in points[number + 1 :]
            if late[0] - early[0] >= self._SPAN_S / 2
        ]
        return median(slopes) * 1e6 if slopes else None

    def behind_s(self, waited: bool) -> float:
        """How much later than at best packets come although each has to be waited for, seconds; 0 for not.

        A link that is too slow for its stream does that: the camera, or something on the way, keeps more and
        more back. Only the camera's own clock tells this from timestamps that run wrong.

        Args:
            waited: Whether the packet of the last `report` had to be waited for.
        """
        self._waits = self._waits + 1 if waited and self._lag_s > self._LAG_S else 0
        return self._lag_s if self._waits >= self._WAITS else 0.0

    def report(self, utc_ns: int, raw_ns: int, now_s: float) -> None:
        """Take what a packet brings.

        Args:
            utc_ns: The camera's UTC time of the packet, nanoseconds.
            raw_ns: Its timestamp, nanoseconds.
            now_s: This host's UTC time of its arrival, seconds.
        """
        self._recent.append(utc_ns - raw_ns)
        if len(self._recent) < self._AGREE:
            return
        base_ns = sorted(self._recent)[self._AGREE // 2]
        if self._base_ns is not None and abs(base_ns - self._base_ns) > self._STEP_NS:
            self._windows.clear()  # It was set: what was before says nothing about its rate.
            self._best, self._best_before_s = None, -math.inf
        self._base_ns = base_ns
        self._watch((raw_ns + base_ns) / 1e9 - now_s, now_s)

    def utc(self, raw_ns: int | None) -> float | None:
        """The camera's UTC time of a picture, seconds; None before it is known, or without a timestamp.

        Args:
            raw_ns: Its timestamp, nanoseconds.
        """
        if self._base_ns is None or raw_ns is None:
            return None
        return (raw_ns + self._base_ns) / 1e9

    def _watch(self, offset_s: float, now_s: float) -> None:
        """Keep the largest offset of each window, which is that of its least delayed packet."""
        if self._best is None:
            self._window_s, self._best = now_s, (now_s, offset_s)
        elif now_s - self._window_s >= self._WINDOW_S:
            self._windows.append(self._best)
            self._best_before_s = max(point[1] for point in list(self._windows)[-self._RECENT_WINDOWS :])
            self._window_s, self._best = now_s, (now_s, offset_s)
        elif offset_s >= self._best[1]:
            self._best = (now_s, offset_s)
        self._lag_s = max(self._best_before_s, self._best[1]) - offset_s


class Backlog:
    """How far reading lags behind the camera: arrival minus presentation time, above its least value lately.

    A stream that always takes the same long way has no backlog. One that lags although each packet had to
    be waited for has no backlog either: there is nothing newer to be had.

    Args:
        window_ns: For how long the least value counts.
    """

    _WAITS = 10

    def __init__(self, window_ns: int = 60 * _SECOND_NS) -> None:
        self._window_ns = window_ns // 2
        self._since_ns: int | None = None
        self._least: list[int] = []
        self._waits = 0

    def of(self, raw_ns: int, arrival_ns: int, waited: bool) -> int:
        """The backlog in nanoseconds, at least 0.

        Args:
            raw_ns: Timestamp of a packet, nanoseconds.
            arrival_ns: Monotonic time at which it was read.
            waited: Whether it had to be waited for.
        """
        delay_ns = arrival_ns - raw_ns
        if self._since_ns is None or not self._least:
            self._since_ns, self._least = arrival_ns, [delay_ns]
        elif arrival_ns - self._since_ns > self._window_ns:
            self._since_ns, self._least = arrival_ns, [self._least[-1], delay_ns]
        else:
            self._least[-1] = min(self._least[-1], delay_ns)
        self._waits = self._waits + 1 if waited else 0
        backlog_ns = delay_ns - min(self._least)
        if backlog_ns and self._waits >= self._WAITS:
            self.restart()
            return self.of(raw_ns, arrival_ns, False)
        return backlog_ns

    def restart(self) -> None:
        """The timestamps start anew: what was measured before does not count."""
        self._least = []
        self._waits = 0
