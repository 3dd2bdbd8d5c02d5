"""Objects that come at the camera: time to contact from how fast their boxes grow.

The time to contact of something that is approached at constant speed is its size in the picture divided by
the rate at which that grows (Lee, "A Theory of Visual Control of Braking Based on Information about
Time-to-Collision", Perception 5, 1976), so that neither distance nor speed need to be known. Dagan, Mano,
Stein and Shashua, "Forward Collision Warning with a Single Camera" (IEEE Intelligent Vehicles Symposium,
2004), use it with boxes of a detector, as here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader

__all__ = ["Closing", "Severity"]

Severity = Literal["notice", "warning", "critical"]

_SEVERITIES: tuple[Severity, ...] = ("notice", "warning", "critical")
#: Fewer boxes, or boxes of a shorter time as a share of the window, give no time to contact.
_LEAST_BOXES = 4
_LEAST_SPAN = 0.6
#: More are not needed, and would cost the square of it.
_MOST_BOXES = 24
#: What was seen before a gap of this length, as a share of the window, is forgotten.
_LONGEST_GAP = 0.5
#: The growth must be this many times its own uncertainty.
_SURE = 3.0
#: Width and height must both grow, the slower one at least at this share of the pace of the other:
#: what turns gets wider, who raises an arm gets taller, and only what comes nearer grows both ways.
_BOTH_WAYS = 0.25
#: Nothing grows by less than this share of what its limit would make it grow, and still is a case.
_WORTH_A_LOOK = 0.25
#: What lasts for less than so many windows is a jolt, and else a turn.
_JOLTS = 2
#: For so many windows the way sideways is drawn out.
_AHEAD = 2.0
#: A side as near as this to the edge of the frame, as a share of the frame's, is cut off.
_EDGE = 0.004
#: Once told, it is taken back only beyond the limit times this.
_EASE = 1.25


#: Time in nanoseconds; width, height and horizontal middle in pixels, nan where cut off; height as it is.
_Row = tuple[int, float, float, float, float]


@dataclass(slots=True)
class _Approach:
    """What is remembered of one object."""

    boxes: deque[_Row] = field(default_factory=deque)
    told: Severity | None = None
    worst: int = -1
    since: list[int | None] = field(default_factory=lambda: [None, None, None])
    easing: int | None = None
    contact: int = 0


class Closing(Observer):
    """Says which objects will reach the camera within seconds if nothing changes.

    Over a short window the inverse of a box's size is fitted with a line (Theil and Sen: the median of the
    slopes between all pairs, which single bad boxes do not move). At constant speed it *is* a line, and
    meets zero at the contact. Where the middle of the box will then be sideways, in heights of the object,
    says whether it hits or passes: a parked car at the roadside passes, one ahead in the same lane does not.
    Two metres are 1.2 heights of a person or a car, and 0.6 of a lorry.

    An object is told (``start``) when its time to contact has been under ``notice_s`` for ``hold_s``;
    ``update`` comes with each change of severity, ``end`` when it has receded, turned aside, or not been seen
    for ``clear_s``. The ``severity`` of the end is the worst there was. What fills the frame cannot be
    measured any more, and counts as coming nearer until it should have arrived.

    Defaults: over 4 s drivers have a situation under control, under 1.5 s it is a near miss (van der Horst
    and Hogema, "Time-to-Collision and Collision Avoidance Systems", ICTCT 1993); the tests of NHTSA want a
    warning no later than 2.0 to 2.4 s before contact ("Forward Collision Warning System Confirmation Test",
    2013), for which 2.7 s leaves time.

    Jolts of the camera are taken out of the boxes' way sideways where the motion of the picture is known; a
    steady turn is not, for where the camera turns to it goes. The scale of the motion is not taken out: it is
    the camera driving ahead. A lens that zooms looks like that as well, so do not use this with one.

    Args:
        labels: Labels of the objects to tell of; None for all.
        notice_s: Time to contact from which it is a ``notice``, seconds.
        warning_s: From which it is a ``warning``.
        critical_s: From which it is ``critical``.
        window_s: Time over which the growth is measured, seconds.
        hold_s: A severity must have been seen for so long, seconds.
        clear_s: So must its being over.
        min_height: Smallest box, as a share of the frame's height: smaller ones cannot be measured.
        corridor: How far beside the camera what passes may pass and still count, in heights of the object.
        focus_x: What the camera drives towards, as a share of the frame's width.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        labels: Collection[str] | None = None,
        notice_s: float = 4.0,
        warning_s: float = 2.7,
        critical_s: float = 1.5,
        window_s: float = 0.8,
        hold_s: float = 0.2,
        clear_s: float = 0.6,
        min_height: float = 0.03,
        corridor: float = 1.2,
        focus_x: float = 0.5,
    ) -> None:
        if not 0 < critical_s <= warning_s <= notice_s < float("inf"):
            raise ConfigError(
                f"closing: {notice_s}, {warning_s} and {critical_s} s do not descend to a positive number",
                hint="write notice_s over warning_s over critical_s, such as 4, 2.7 and 1.5",
            )
        for name, value, low, top in (
            ("window_s", window_s, 0.1, 10.0),
            ("hold_s", hold_s, 0.0, 10.0),
            ("clear_s", clear_s, 0.0, 10.0),
            ("min_height", min_height, 0.0, 1.0),
            ("corridor", corridor, 0.0, 100.0),
            ("focus_x", focus_x, 0.0, 1.0),
        ):
            if not low <= value <= top:
                raise ConfigError(f"closing.{name} is {value}", hint=f"write a number from {low} to {top}")
        self._labels = None if labels is None else frozenset(labels)
        self._limits = (notice_s, warning_s, critical_s)
        self._window_ns, self._hold_ns = round(window_s * 1e9), round(hold_s * 1e9)
        self._clear_ns = round(clear_s * 1e9)
        self._min_height, self._corridor, self._focus_x = min_height, corridor, focus_x
        self._objects: dict[int, _Approach] = {}
        self._header: FrameHeader | None = None
        # Where the picture has come to sideways since the first frame: (time, pixels), for two windows.
        self._ways: deque[tuple[int, float]] = deque()
        self._jolts: dict[int, float] = {}

    def begin(self, header: FrameHeader, motion: NDArray[np.float64] | None) -> None:
        """See `Observer.begin`."""
        self._header = header
        way = self._ways[-1][1] if self._ways else 0.0
        if motion is not None:
            middle = np.array([header.width / 2, header.height / 2])
            way += float(motion[0, :2] @ middle + motion[0, 2] - middle[0])
        self._ways.append((header.pts_ns, way))
        while header.pts_ns - self._ways[0][0] > _JOLTS * self._window_ns:
            self._ways.popleft()
        times = np.array([(at - header.pts_ns) / 1e9 for at, _ in self._ways])
        ways = np.array([way for _, way in self._ways])
        self._jolts = dict(
            zip((at for at, _ in self._ways), (ways - _line(times, ways)).tolist(), strict=True)
        )

    def see(self, item: TrackedObject) -> Iterable[Fact]:
        """See `Observer.see`."""
        header = item.last
        approach = self._objects.get(item.track_id)
        if approach is None:
            approach = self._objects[item.track_id] = _Approach()
        boxes, now = approach.boxes, header.pts_ns
        if boxes and not 0 < now - boxes[-1][0] <= _LONGEST_GAP * self._window_ns:
            boxes.clear()
        x1, y1, x2, y2 = item.box
        edge_x, edge_y = _EDGE * header.width, _EDGE * header.height
        # A cut side tells nothing of the size that way, and one of two nothing of the middle.
        left, right = x1 <= edge_x, x2 >= header.width - edge_x
        width = math.nan if left or right else x2 - x1
        height = math.nan if y1 <= edge_y or y2 >= header.height - edge_y else y2 - y1
        middle = math.nan if left != right else (x1 + x2) / 2
        boxes.append((now, width, height, middle, max(y2 - y1, 1e-6)))
        while now - boxes[0][0] > self._window_ns:
            boxes.popleft()
        ttc_s: float | None = math.inf
        wanted = self._labels is None or item.label in self._labels
        if wanted and y2 - y1 >= self._min_height * header.height:
            ttc_s = self._time_to_contact(boxes, header, approach.told is not None)
        return self._judge(item, approach, ttc_s, now)

    def leave(self, item: TrackedObject, reason: str) -> Iterable[Fact]:
        """See `Observer.leave`."""
        approach = self._objects.pop(item.track_id, None)
        return () if approach is None or approach.told is None else (self._end(item, approach),)

    def finish(self, items: Collection[TrackedObject]) -> Iterable[Fact]:
        """See `Observer.finish`."""
        facts: list[Fact] = []
        if self._header is None:
            return facts
        for item in items:
            approach = self._objects.get(item.track_id)
            unseen = self._header.pts_ns - item.last.pts_ns
            if approach is not None and approach.told is not None and unseen >= max(self._clear_ns, 1):
                facts.append(self._end(item, approach))
        return facts

    def _time_to_contact(self, boxes: deque[_Row], header: FrameHeader, told: bool) -> float | None:
        """Seconds until it reaches the camera; infinite if it does not, None if that cannot be told."""
        if len(boxes) > _MOST_BOXES:  # evenly thinned out, with the first and the last
            kept = np.linspace(0, len(boxes) - 1, _MOST_BOXES).round().astype(int).tolist()
            boxes = deque(boxes[at] for at in kept)
        rows = np.array([row[1:] for row in boxes], np.float64)
        times = np.array([(row[0] - header.pts_ns) / 1e9 for row in boxes])
        span_s = float(times[-1] - times[0])
        if len(boxes) < _LEAST_BOXES or span_s < _LEAST_SPAN * self._window_ns / 1e9:
            return None
        if not self._grown(boxes, span_s):
            return math.inf
        growths = [_growth(times, rows[:, side], span_s) for side in (0, 1)]
        known = [growth for growth in growths if growth is not None]
        if not known:
            return None
        rates = [rate for rate, _ in known]
        if max(rates) <= 0 or min(rates) < _BOTH_WAYS * max(rates):
            return math.inf
        # Of the two the surer one; the height of who walks is much surer than the width.
        rate, doubt = min(known, key=lambda growth: growth[1])
        if rate < _SURE * doubt:
            return math.inf
        ttc_s = 1.0 / rate
        return ttc_s if self._hits(boxes, times, ttc_s, header.width, told) else math.inf

    def _grown(self, boxes: deque[_Row], span_s: float) -> bool:
        """Whether it is worth a closer look, which costs much more; true where it is cut off."""
        if not (math.isfinite(boxes[0][2]) and math.isfinite(boxes[-1][2])):
            return True
        first = boxes[0][4] + boxes[1][4]
        last = boxes[-2][4] + boxes[-1][4]
        return last > first * (1 + _WORTH_A_LOOK * span_s / self._limits[0])

    def _hits(
        self, boxes: deque[_Row], times: NDArray[np.float64], ttc_s: float, frame_width: int, told: bool
    ) -> bool:
        """Whether what arrives in so many seconds arrives here, and not beside the camera."""
        middles = np.array([row[3] - self._jolts.get(row[0], 0.0) for row in boxes])
        aside = (middles - self._focus_x * frame_width) / np.array([row[4] for row in boxes])
        whole = np.isfinite(aside)
        if np.count_nonzero(whole) < _LEAST_BOXES:  # it leaves at one side: nobody knows where its middle is
            return told
        slope, here = _theil_sen(times[whole], aside[whole])
        # A slope is not sure enough to be drawn out for longer than about what it was seen for.
        there = here + slope * min(ttc_s, _AHEAD * self._window_ns / 1e9)
        return abs(there) <= self._corridor

    def _judge(self, item: TrackedObject, approach: _Approach, ttc_s: float | None, now: int) -> list[Fact]:
        """Take note of a time to contact and say what has changed."""
        told = -1 if approach.told is None else _SEVERITIES.index(approach.told)
        if ttc_s is None and told >= 0 and now < approach.contact:
            return []
        ttc_s = math.inf if ttc_s is None else ttc_s
        if ttc_s < math.inf:
            approach.contact = now + round(ttc_s * 1e9)
        for level, limit in enumerate(self._limits):
            if ttc_s > limit:
                approach.since[level] = None
            elif approach.since[level] is None:
                approach.since[level] = now
        held = sum(since is not None and now - since >= self._hold_ns for since in approach.since) - 1
        if held > told:
            approach.easing = None
            return [self._tell(item, approach, "update" if told >= 0 else "start", held, ttc_s)]
        eased = sum(ttc_s <= limit * _EASE for limit in self._limits) - 1
        if eased >= told:
            approach.easing = None
            return []
        if approach.easing is None:
            approach.easing = now
        if now - approach.easing < self._clear_ns:
            return []
        approach.easing = None
        return [
            self._end(item, approach) if eased < 0 else self._tell(item, approach, "update", eased, ttc_s)
        ]

    def _tell(self, item: TrackedObject, approach: _Approach, action: str, level: int, ttc_s: float) -> Fact:
        approach.told, approach.worst = _SEVERITIES[level], max(approach.worst, level)
        fields: dict[str, object] = {"action": action, "severity": approach.told}
        if ttc_s < math.inf:
            fields["ttc_s"] = round(ttc_s, 1)
        return Fact("closing", item, fields)

    def _end(self, item: TrackedObject, approach: _Approach) -> Fact:
        worst = _SEVERITIES[approach.worst]
        approach.told, approach.worst, approach.easing = None, -1, None
        approach.since = [None, None, None]
        return Fact("closing", item, {"action": "end", "severity": worst})


def _growth(
    times: NDArray[np.float64], sizes: NDArray[np.float64], span_s: float
) -> tuple[float, float] | None:
    """Rate at which a size grows now, and how unsure that is, both per second; None if it cannot be seen."""
    seen = np.isfinite(sizes)
    if not seen[-1] or np.count_nonzero(seen) < _LEAST_BOXES:
        return None
    times, inverse = times[seen], 1.0 / np.maximum(sizes[seen], 1e-6)
    if times[-1] - times[0] < _LEAST_SPAN * span_s:
        return None
    slope, now = _theil_sen(times, inverse)
    if now <= 0:  # by the line it has arrived
        now = float(inverse[-1])
    noise = 1.4826 * _median(np.abs(inverse - (now + slope * times)))
    spread = math.sqrt(float(np.sum((times - times.mean()) ** 2)))
    return -slope / now, noise / spread / now


def _theil_sen(times: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """The median of the slopes between all pairs of points, and the value at time 0 that goes with it."""
    first, second = _pairs(len(times))
    slope = _median((values[second] - values[first]) / (times[second] - times[first]))
    return slope, _median(values - slope * times)


@lru_cache(maxsize=64)
def _pairs(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the two points of each pair."""
    first, second = np.triu_indices(count, 1)
    return first, second


def _median(values: NDArray[np.float64]) -> float:
    """As `numpy.median`, which takes four times as long for so few."""
    ordered, half = np.sort(values), len(values) // 2
    return float(ordered[half] if len(values) % 2 else (ordered[half - 1] + ordered[half]) / 2)


def _line(times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The least-squares line through points, at their times."""
    middle = times - times.mean()
    weight = float(middle @ middle)
    slope = float(middle @ values) / weight if weight > 0 else 0.0
    return np.asarray(values.mean() + middle * slope, np.float64)
