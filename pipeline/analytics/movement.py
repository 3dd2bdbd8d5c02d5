"""How objects move: the way they have gone, whether they stay where they are, and their speed over ground.

- ``path``: where an object was, in the picture. A new point is kept when the anchor has clearly moved since
  the last; when there are too many, the one goes whose absence changes the way least, at its own time, so
  that pauses stay too. What a point that went had stood for stays with its neighbours, after SQUISH-E
  (Muckell et al., "Compression of trajectory data: a comprehensive evaluation and new approach",
  GeoInformatica 18, 2014). The last point is where the object is now.
- ``stationary``: True once the anchor has stayed near one place for a while. It becomes False when the anchor
  is more than twice as far from there, so that boxes that breathe change nothing.
- ``speed_mps``: the slope of a straight line through the places of the last second on the ground, by least
  squares, less what their noise alone would give.
- ``distance_m``: the way over ground between places that are clearly apart. What stands gets nowhere.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.areas import anchor_of
from pipeline.analytics.ground import GroundPlane, check_ground
from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader, Point, Scene

__all__ = ["Movement"]

#: Shares of a box's size, which is the square root of its area: within the first of a place an object stays
#: there, beyond the second it has left.
_STAYS = 0.15
_LEAVES = 0.35
#: Between two points of a path, and between two places on the way over ground, it has moved by these.
_PATH_STEP = 0.05
_GROUND_STEP = 0.1
#: None of them is less than this share of the frame's diagonal, and to leave is twice that: boxes of far
#: objects are small, and the noise of their edges is not.
_FLOOR = 0.004
#: Time over which the anchor is smoothed before it is asked whether it stays, seconds.
_SMOOTH_S = 0.25
#: The place of rest follows the anchor in so many times the time that it takes to be stationary.
_FOLLOW = 2.0
#: Places of so long make up the speed, and three at least, however old; they must span half of it.
_WINDOW_S = 1.0
_LEAST_SPAN_S = 0.5
_LEAST_PLACES = 3
#: So many places, and a speed of so many times its standard deviation, make a movement of which one is sure.
_SURE_PLACES = 5
_SURE = 5.0
#: A box that ends so near to the frame's edge, in pixels, may go on beyond it.
_EDGE = 1.5


@dataclass(slots=True)
class _Path:
    """What belongs to the points of a path.

    Attributes:
        carried: For each point, the largest error that points between it and its neighbours left behind.
        cost: For each point, ``carried`` and the error of leaving it out; infinite for the ends.
    """

    carried: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Moving:
    """What is remembered of one object.

    Attributes:
        seen_ns: When it was seen last.
        at: Its smoothed anchor, in pixels.
        rest: The place that it stays near to.
        since_ns: Since when it has.
        path: What belongs to its path.
        places: Seconds and metres (x, y) of the last second.
        stand: The last place that counts on its way over ground.
        way_m: Its way up to there.
    """

    seen_ns: int
    at: Point
    rest: Point
    since_ns: int
    path: _Path = field(default_factory=_Path)
    places: deque[tuple[float, float, float]] = field(default_factory=deque)
    stand: Point | None = None
    way_m: float = 0.0


class Movement(Observer):
    """Keeps ``path``, ``stationary``, ``speed_mps`` and ``distance_m`` of the objects; tells no facts.

    The anchor is the middle of a box's lower edge, where an object stands. Where the motion of the picture is
    known it is taken off before it is asked whether an object stays. The path is in the picture as it was.

    Speed and way need a calibrated ground and a camera that does not move; they are told in frames in which
    the anchor is on the ground: before the horizon, and with a box that no edge of the frame cuts, for what
    is cut does not show where it stands. Elsewhere the speed is None.

    Args:
        scene: What is known of the picture.
        stationary_s: An object is stationary once it has stayed for so long, seconds.
        path_points: Most points of a path.

    Raises:
        ConfigError: the ground's calibration is none, or a number is out of its range.
    """

    def __init__(self, scene: Scene, *, stationary_s: float = 3.0, path_points: int = 64) -> None:
        if not 0 < stationary_s < float("inf"):
            raise ConfigError(f"stationary_s is {stationary_s}", hint="write a number of seconds over 0")
        if path_points < 4:
            raise ConfigError(f"path_points is {path_points}", hint="write 4 or more, such as 64")
        self._stationary_ns = round(stationary_s * 1e9)
        self._follow_s = _FOLLOW * stationary_s
        self._most = path_points
        self._objects: dict[int, _Moving] = {}
        self._header: FrameHeader | None = None
        self._plane: GroundPlane | None = None
        self._lost = False
        self._scene = Scene()
        self.adopt(scene)

    def adopt(self, scene: Scene) -> None:
        """Go on with another scene, between two frames. Ways go on from where they were.

        Args:
            scene: What is known now.

        Raises:
            ConfigError: the ground's calibration is none.
        """
        if scene.ground is not None:
            check_ground("ground", scene.ground)
        changed = (scene.ground, scene.moving) != (self._scene.ground, self._scene.moving)
        self._scene = scene
        if changed:
            self._plane = None
            for moving in self._objects.values():
                moving.places.clear()
                moving.stand = None

    def begin(self, header: FrameHeader, motion: NDArray[np.float64] | None) -> None:
        """A frame begins; see `Observer.begin`."""
        last, self._header = self._header, header
        resized = last is None or (last.width, last.height) != (header.width, header.height)
        ground = self._scene.ground
        if ground is None or self._scene.moving:
            self._plane = None
        elif self._plane is None or resized:
            self._plane = GroundPlane(ground, header.width, header.height)
        # A camera that moves, nobody knows where to: who was at rest is taken to be so still.
        self._lost = motion is None and self._scene.moving
        if motion is None:
            return
        (a, b, c), (d, e, f) = motion.tolist()
        for moving in self._objects.values():
            (x, y), (u, v) = moving.at, moving.rest
            moving.at = (a * x + b * y + c, d * x + e * y + f)
            moving.rest = (a * u + b * v + c, d * u + e * v + f)

    def see(self, item: TrackedObject) -> tuple[Fact, ...]:
        """An object was seen in this frame; see `Observer.see`."""
        header = self._header
        assert header is not None
        now, anchor = header.pts_ns, anchor_of(item.box, "bottom")
        x1, y1, x2, y2 = item.box
        size = math.sqrt(max(x2 - x1, 1.0) * max(y2 - y1, 1.0))
        moving = self._objects.get(item.track_id)
        if moving is None:
            moving = self._objects[item.track_id] = _Moving(now, anchor, anchor, now)
        elapsed = max(now - moving.seen_ns, 0) / 1e9
        floor = _FLOOR * math.hypot(header.width, header.height)
        self._go_on(item, moving, anchor, max(_PATH_STEP * size, floor))
        stays, leaves = max(_STAYS * size, floor), max(_LEAVES * size, 2 * floor)
        self._rest(item, moving, anchor, leaves if item.stationary else stays, elapsed)
        moving.seen_ns = now
        self._walk(item, moving, anchor, max(_GROUND_STEP * size, floor))
        return ()

    def leave(self, item: TrackedObject, reason: str) -> tuple[Fact, ...]:
        """An object has gone; what it did stays written on it."""
        self._objects.pop(item.track_id, None)
        return ()

    def _go_on(self, item: TrackedObject, moving: _Moving, anchor: Point, step: float) -> None:
        """Add to its path what is a step away from the point before, in pixels."""
        header = self._header
        assert header is not None
        width, height = max(header.width, 1), max(header.height, 1)
        path, notes = item.path, moving.path
        here = ((header.pts_ns - item.first.pts_ns) / 1e9, anchor[0] / width, anchor[1] / height)
        if len(path) >= 2:
            _, x, y = path[-2]
            if math.hypot(anchor[0] - x * width, anchor[1] - y * height) < step:
                path[-1] = here
                return
        path.append(here)
        notes.carried.append(0.0)
        notes.cost.append(math.inf)
        _weigh(path, notes, len(path) - 3)
        _weigh(path, notes, len(path) - 2)
        if len(path) > self._most:
            _drop(path, notes)

    def _rest(self, item: TrackedObject, moving: _Moving, anchor: Point, near: float, elapsed: float) -> None:
        """Say whether it stays where it is: not farther from there than so many pixels."""
        assert self._header is not None
        now = self._header.pts_ns
        if self._lost:
            moving.at = moving.rest = anchor
            moving.since_ns = now
            return
        moving.at = _towards(moving.at, anchor, elapsed / _SMOOTH_S)
        if math.dist(moving.at, moving.rest) > near:
            item.stationary = False
            moving.rest, moving.since_ns = moving.at, now
        elif item.stationary:
            moving.rest = _towards(moving.rest, moving.at, elapsed / self._follow_s)
        elif now - moving.since_ns >= self._stationary_ns:
            item.stationary = True

    def _walk(self, item: TrackedObject, moving: _Moving, anchor: Point, step: float) -> None:
        """Say how fast it is and, in steps of so many pixels, how far it has come over ground."""
        header, plane = self._header, self._plane
        assert header is not None
        item.speed_mps = None
        x1, _, x2, y2 = item.box
        cut = x1 < _EDGE or x2 > header.width - _EDGE or y2 > header.height - _EDGE
        pixel = math.nan if plane is None or cut else plane.metres_per_pixel(*anchor)
        if plane is None or math.isnan(pixel):
            moving.places.clear()
            return
        if item.distance_m is None:
            item.distance_m = 0.0
        now, places = header.pts_ns / 1e9, moving.places
        x, y = plane.to_ground([anchor])[0].tolist()
        places.append((now, x, y))
        while len(places) > _LEAST_PLACES and now - places[0][0] > _WINDOW_S:
            places.popleft()
        if len(places) < _LEAST_PLACES or now - places[0][0] < _LEAST_SPAN_S:
            return
        first, last, item.speed_mps, sure = _line(places)
        if moving.stand is None:
            moving.stand = first
        if item.stationary:
            return
        on = math.dist(last, moving.stand)
        if on > step * pixel:
            moving.way_m += on
            moving.stand, on = last, 0.0
        # What is less than a step counts for who is clearly on the way, and is not taken back.
        item.distance_m = max(item.distance_m, moving.way_m + (on if sure else 0.0))


def _towards(place: Point, goal: Point, times: float) -> Point:
    """Where a place is that has followed a goal for so many times its time constant."""
    share = -math.expm1(-times)
    return (place[0] + share * (goal[0] - place[0]), place[1] + share * (goal[1] - place[1]))


def _weigh(path: list[tuple[float, float, float]], notes: _Path, at: int) -> None:
    """Find out what it costs to leave a point out: how far it is from where its neighbours say it was."""
    if not 0 < at < len(path) - 1:
        return
    (start, ax, ay), (time, x, y), (end, bx, by) = path[at - 1 : at + 2]
    share = (time - start) / (end - start) if end > start else 0.5
    error = math.hypot(ax + share * (bx - ax) - x, ay + share * (by - ay) - y)
    notes.cost[at] = notes.carried[at] + error


def _drop(path: list[tuple[float, float, float]], notes: _Path) -> None:
    """Leave out the point that costs least."""
    at = min(range(len(path)), key=notes.cost.__getitem__)
    cost = notes.cost[at]
    del path[at], notes.carried[at], notes.cost[at]
    for beside in (at - 1, at):
        notes.carried[beside] = max(notes.carried[beside], cost)
        _weigh(path, notes, beside)


def _line(places: deque[tuple[float, float, float]]) -> tuple[Point, Point, float, bool]:
    """A straight, even way through places, by least squares: its start and end, its speed, and if it is one.

    The square of a slope is too large by the slope's variance, on average; that is taken off.
    """
    rows = np.array(places)
    middle = rows.mean(axis=0)
    time, way = rows[:, 0] - middle[0], rows[:, 1:] - middle[1:]
    spread = float(time @ time)
    slope = time @ way / spread
    rest = way - time[:, None] * slope
    noise = float((rest * rest).sum()) / max(len(rows) - 2, 1) / spread
    square = float(slope @ slope)
    (x, y), (u, v) = (middle[1:] + time[0] * slope).tolist(), (middle[1:] + time[-1] * slope).tolist()
    sure = len(rows) >= _SURE_PLACES and square > _SURE**2 * noise
    return (x, y), (u, v), math.sqrt(max(square - noise, 0.0)), sure
