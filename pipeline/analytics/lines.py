"""Lines: who crossed them, and to which side.

An object is on a side of a line once its anchor is ``margin`` of its box's height away from it; nearer, it
stands on the line, and keeps the side that it had. It has crossed when it gets to the other side, and its way
from there to here, straight between the frames in which it was seen, led through the line as drawn: not past
its end, and not there and back. A crossing is told in the first frame on the other side, once, however many
frames were dropped on the way. An object that starts on the line takes the side to which it goes first.

Of the filter, the labels must hold when the crossing is told, and all of it in a frame since the object last
came to a side: a score that dips as someone passes another does not undo a crossing.

Trackers lose objects where they pass each other, which is where lines are drawn. So a new object that appears
near the line takes over the way of one that was lost near it: of the same label, not seen for at most
``handover_s``, both within their own box's height of the line, and no further apart than twice that. If the
two are on different sides, the crossing is told of the new one. Each lost object is taken over once, by the
nearest; if it is seen again all the same, it begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.areas import Segment, anchor_of, check_points, matches, to_pixels
from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader, Line, Point, Scene

__all__ = ["Lines"]

#: How far apart the end of one track and the start of the next may be, in heights of the larger box.
_REACH = 2.0


@dataclass(slots=True)
class _Way:
    """How one object has come to a line.

    Attributes:
        label: Its label.
        at: Its anchor when it was last seen.
        seen_ns: When that was.
        height: Height of its box then, pixels.
        side: 1 for left, -1 for right, 0 while it has been on neither.
        through: Whether its way since it was there leads through the line.
        counts: Whether the filter has held since it came there.
        given: Whether another has taken over its way.
        gone: Whether the object has ended.
    """

    label: str
    at: Point
    seen_ns: int
    height: float
    side: int = 0
    through: bool = False
    counts: bool = False
    given: bool = False
    gone: bool = False


@dataclass(slots=True)
class _Gate:
    """One line, and the ways to it.

    Attributes:
        line: The line.
        segment: The same in pixels.
        ways: By track id.
        new: Objects first seen in this frame.
    """

    line: Line
    segment: Segment | None = None
    ways: dict[int, _Way] = field(default_factory=dict)
    new: list[TrackedObject] = field(default_factory=list)

    def arrives(self, way: _Way) -> str:
        """The name of the side to which it has come through the line; empty where it has not."""
        assert self.segment is not None
        distance = self.segment.left_of(way.at)
        if distance == 0 or abs(distance) < self.line.margin * way.height:
            return ""
        side = 1 if distance > 0 else -1
        crossed = way.side == -side and way.through
        way.side, way.through = side, False
        if not crossed:
            return ""
        return self.line.left if side > 0 else self.line.right


class Lines(Observer):
    """All lines of one source.

    Facts are ``line``: ``line`` and ``direction``, the name of the side on which the object is now. The
    motion of a moving camera changes nothing: a line is a part of the picture.

    Args:
        scene: What is drawn in the picture.
        handover_s: For how long a lost object waits for its successor, seconds; 0 for no handover.

    Raises:
        ConfigError: a line is none, or ``handover_s`` is negative or not finite.
    """

    def __init__(self, scene: Scene, *, handover_s: float = 1.0) -> None:
        if not 0 <= handover_s < float("inf"):
            raise ConfigError(f"handover_s is {handover_s}", hint="write a number of seconds, 0 or more")
        self._handover_ns = round(handover_s * 1e9)
        self._gates = {name: _gate(name, line) for name, line in scene.lines.items()}
        self._now_ns = 0
        self._size = (0, 0)

    def adopt(self, scene: Scene) -> list[Fact]:
        """Go on with other lines, between two frames.

        Lines that are the same as before remember who is where; at the others all objects begin anew.

        Args:
            scene: What is drawn now.

        Returns:
            Nothing: no line is crossed by being drawn.

        Raises:
            ConfigError: as when made; all is left as it was.
        """
        gates = {name: _gate(name, line) for name, line in scene.lines.items()}
        for name, old in self._gates.items():
            if name in gates and gates[name].line == old.line:
                gates[name] = old
        self._gates = gates
        return []

    def begin(self, header: FrameHeader, motion: NDArray[np.float64] | None) -> None:
        """A frame begins; see `Observer`."""
        self._now_ns = header.pts_ns
        size = (header.width, header.height)
        for gate in self._gates.values():
            gate.new = []
            if gate.segment is None or size != self._size:
                ends = (gate.line.start, gate.line.end)
                gate.segment = Segment(*to_pixels(ends, gate.line.coordinates, *size))
        self._size = size

    def see(self, item: TrackedObject) -> list[Fact]:
        """An object was seen in this frame.

        Returns:
            Its crossings, in the order of the scene.
        """
        facts: list[Fact] = []
        for name, gate in self._gates.items():
            line = gate.line
            at, height = anchor_of(item.box, line.anchor), item.box[3] - item.box[1]
            before = gate.ways.get(item.track_id)
            way = _Way(item.label, at, self._now_ns, height)
            way.counts = matches(line.only, item.label, item.score, item.box, *self._size)
            gate.ways[item.track_id] = way
            if before is None:
                gate.new.append(item)
            elif not before.given:
                self._goes_on(gate, way, before)
            facts += self._told(name, gate, way, item)
        return facts

    def leave(self, item: TrackedObject, reason: str) -> list[Fact]:
        """An object has gone; its way may still be taken over."""
        for gate in self._gates.values():
            if item.track_id in gate.ways:
                gate.ways[item.track_id].gone = True
        return []

    def finish(self, items: Collection[TrackedObject]) -> list[Fact]:
        """All objects have been told.

        Returns:
            Crossings of new objects that take over from lost ones.
        """
        facts: list[Fact] = []
        for name, gate in self._gates.items():
            for item, before in self._successions(gate):
                way = gate.ways[item.track_id]
                self._goes_on(gate, way, before)
                facts += self._told(name, gate, way, item)
            oldest = self._now_ns - self._handover_ns
            past = [one for one, way in gate.ways.items() if way.gone and way.seen_ns < oldest]
            for track_id in past:
                del gate.ways[track_id]
        return facts

    @staticmethod
    def _goes_on(gate: _Gate, way: _Way, before: _Way) -> None:
        """Continue a way with where the object is now."""
        assert gate.segment is not None
        way.side = before.side
        way.through = before.through != gate.segment.parts(before.at, way.at)
        way.counts = way.counts or before.counts

    def _told(self, name: str, gate: _Gate, way: _Way, item: TrackedObject) -> list[Fact]:
        """What there is to tell now that a way is up to date."""
        side, counts = way.side, way.counts
        direction = gate.arrives(way)
        if way.side != side:
            only = gate.line.only
            way.counts = matches(only, item.label, item.score, item.box, *self._size)
            if direction and counts and (only.labels is None or item.label in only.labels):
                return [Fact("line", item, {"line": name, "direction": direction})]
        return []

    def _successions(self, gate: _Gate) -> list[tuple[TrackedObject, _Way]]:
        """New objects and the lost ones that they follow, nearest first, each one once."""
        oldest = self._now_ns - self._handover_ns
        lost = [
            (track_id, way)
            for track_id, way in gate.ways.items()
            if way.side and not way.given and oldest <= way.seen_ns < self._now_ns and self._near(gate, way)
        ]
        pairs: list[tuple[float, TrackedObject, int, _Way]] = []
        for item in gate.new if lost else ():
            way = gate.ways[item.track_id]
            for track_id, other in lost:
                apart = math.dist(way.at, other.at)
                if other.label == way.label and apart <= _REACH * max(way.height, other.height):
                    pairs.append((apart, item, track_id, other))
        found: list[tuple[TrackedObject, _Way]] = []
        taken: set[tuple[str, int]] = set()
        for _, item, track_id, other in sorted(pairs, key=lambda pair: pair[0]):
            ends = {("new", item.track_id), ("lost", track_id)}
            if not ends & taken and self._near(gate, gate.ways[item.track_id]):
                taken |= ends
                found.append((item, other))
                other.given = True
        return found

    @staticmethod
    def _near(gate: _Gate, way: _Way) -> bool:
        assert gate.segment is not None
        return gate.segment.distance(way.at) <= way.height


def _gate(name: str, line: Line) -> _Gate:
    where = f"lines.{name}"
    check_points(where, (line.start, line.end), line.coordinates, 2)
    if not 0 <= line.margin < float("inf"):
        raise ConfigError(
            f"{where}.margin is {line.margin}", hint="write a share of the object's height, 0 or more"
        )
    return _Gate(line)
