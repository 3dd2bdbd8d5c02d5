"""Areas and segments of a picture: what lies in them, on which side of them, and which objects count.

All geometry is in pixels of the source frame, x to the right and y downwards. Frames keep their size within
an epoch, so points are converted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.objects import Box
from pipeline.errors import ConfigError
from pipeline.messages import Anchor, Coordinates, Detections, Filter, Mask, Point

__all__ = ["Polygon", "Segment", "anchor_of", "check_points", "keep", "matches", "to_pixels"]

#: What lies this near to an edge, in pixels, lies on it: 0.7 * 1080 is 755.9999999999999.
_ON_EDGE = 1e-6
#: Scores are float32: 0.7 is 0.69999999 there.
_SCORE_STEP = 1e-6


def to_pixels(
    points: Sequence[Point], coordinates: Coordinates, width: int, height: int
) -> tuple[Point, ...]:
    """Points as drawn, in pixels of a frame.

    Args:
        points: (x, y) each.
        coordinates: What they are measured in.
        width: Width of the frame in pixels.
        height: Its height.
    """
    across, down = (width, height) if coordinates == "normalized" else (1, 1)
    return tuple((float(x * across), float(y * down)) for x, y in points)


def check_points(where: str, points: Sequence[Point], coordinates: Coordinates, least: int) -> None:
    """Make sure that points can be what they are said to be.

    Args:
        where: Their name, for errors: ``zones.driveway.polygon``.
        points: (x, y) each.
        coordinates: What they are measured in.
        least: 3 for an area, 2 for a line.

    Raises:
        ConfigError: there are too few, one is not finite, normalised ones lie outside 0..1, or they enclose
            no area (two: they are the same point).
    """
    if len(points) < least:
        raise ConfigError(f"{where} has {len(points)} points", hint=f"give {least} or more, [x, y] each")
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            raise ConfigError(f"{where} has the point [{x}, {y}]", hint="write two numbers")
        if coordinates == "normalized" and not (0 <= x <= 1 and 0 <= y <= 1):
            raise ConfigError(
                f"{where} has the point [{x}, {y}], but normalized points lie between 0 and 1",
                hint="write coordinates: pixels, or divide by the frame's width and height",
            )
    if least >= 3 and all(_turn(points[0], one, other) == 0 for one in points for other in points):
        raise ConfigError(f"{where} encloses no area", hint="give three corners that are not on one line")
    if least < 3 and len(set(points)) < 2:
        raise ConfigError(f"{where} starts where it ends", hint="give two points apart from each other")


def anchor_of(box: Box, anchor: Anchor) -> Point:
    """The point of a box that counts.

    Args:
        box: x1, y1, x2, y2.
        anchor: ``bottom`` or ``center``.
    """
    x1, y1, x2, y2 = box
    return ((x1 + x2) / 2, y2 if anchor == "bottom" else (y1 + y2) / 2)


def matches(only: Filter, label: str, score: float, box: Box, width: int, height: int) -> bool:
    """Whether an object counts in the frame at hand; all limits belong to what they allow.

    Args:
        only: The filter.
        label: Label of the object.
        score: Its score in this frame.
        box: Its box in pixels.
        width: Width of the frame in pixels.
        height: Its height.
    """
    if (only.labels is not None and label not in only.labels) or score + _SCORE_STEP < only.confidence:
        return False
    across, down = max(box[2] - box[0], 0.0), max(box[3] - box[1], 0.0)
    share = min(across * down / (width * height), 1.0)
    aspect = across / down if down > 0 else math.inf
    return only.min_area <= share <= only.max_area and only.min_aspect <= aspect <= only.max_aspect


class Polygon:
    """An area; its boundary belongs to it.

    A point is inside when a ray from it crosses the boundary an odd number of times (the even-odd rule): for
    polygons that do not cross themselves, concave or not, in either direction, that is what anybody would
    call inside.

    Args:
        corners: (x, y) in pixels, three or more; the last is joined to the first.
    """

    def __init__(self, corners: Sequence[Point]) -> None:
        self.corners = tuple(corners)
        ends = zip(self.corners, (*self.corners[1:], *self.corners[:1]), strict=True)
        self._edges = tuple((*a, b[0] - a[0], b[1] - a[1], math.dist(a, b)) for a, b in ends if a != b)
        xs, ys = zip(*self.corners, strict=True)
        self._left, self._right = min(xs) - _ON_EDGE, max(xs) + _ON_EDGE
        self._top, self._bottom = min(ys) - _ON_EDGE, max(ys) + _ON_EDGE

    def contains(self, x: float, y: float) -> bool:
        """Whether one point is inside. For one point this is many times as fast as `inside`."""
        if not (self._left <= x <= self._right and self._top <= y <= self._bottom):
            return False
        odd = False
        for start_x, start_y, across, down, length in self._edges:
            from_x, from_y = x - start_x, y - start_y
            cross = across * from_y - down * from_x
            if abs(cross) <= _ON_EDGE * length:
                along = across * from_x + down * from_y
                if -_ON_EDGE * length <= along <= length * (length + _ON_EDGE):
                    return True
            # The edge spans the height of the point, and the ray to the right of the point meets it.
            if (start_y > y) != (start_y + down > y) and (cross > 0) == (down > 0):
                odd = not odd
        return odd

    def inside(self, points: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether points are inside.

        Args:
            points: (n, 2), x and y in pixels.

        Returns:
            (n,), the same as `contains` says of each.
        """
        edges = np.array(self._edges, np.float64).reshape(-1, 5)
        start, way, length = edges[:, :2], edges[:, 2:4], edges[:, 4]
        rest = np.asarray(points, np.float64).reshape(-1, 1, 2) - start  # (n, edges, 2)
        cross = way[:, 0] * rest[..., 1] - way[:, 1] * rest[..., 0]
        along = way[:, 0] * rest[..., 0] + way[:, 1] * rest[..., 1]
        touches = np.abs(cross) <= _ON_EDGE * length
        touches &= (along >= -_ON_EDGE * length) & (along <= length * (length + _ON_EDGE))
        spans = (rest[..., 1] < 0) != (rest[..., 1] < way[:, 1])
        odd = (spans & ((cross > 0) == (way[:, 1] > 0))).sum(axis=1) % 2 == 1
        result: NDArray[np.bool_] = odd | touches.any(axis=1)
        return result


class Segment:
    """A piece of a straight line.

    Args:
        start: (x, y) in pixels.
        end: The other end, elsewhere.
    """

    def __init__(self, start: Point, end: Point) -> None:
        self._start = start
        self._length = math.dist(start, end)
        self._way = ((end[0] - start[0]) / self._length, (end[1] - start[1]) / self._length)

    def left_of(self, point: Point) -> float:
        """How far a point is from the straight line through the segment, in pixels.

        Above 0 at the left hand of who walks from start to end as seen in the picture, below 0 at the right:
        y grows downwards, so the left of a way to the right is the upper part of the picture.
        """
        x, y = point[0] - self._start[0], point[1] - self._start[1]
        distance = self._way[1] * x - self._way[0] * y
        return 0.0 if abs(distance) <= _ON_EDGE else distance

    def distance(self, point: Point) -> float:
        """How far a point is from the segment itself, in pixels."""
        along = self._along(point)
        return math.hypot(self.left_of(point), along - min(max(along, 0.0), self._length))

    def parts(self, one: Point, other: Point) -> bool:
        """Whether the straight way between two points crosses the segment; its ends belong to it.

        A point on the line counts as one on its right, so that a way in several steps crosses as often as
        it changes sides, whether a step ends on the line or not.
        """
        here, there = self.left_of(one), self.left_of(other)
        if (here > 0) == (there > 0):
            return False
        at, to = self._along(one), self._along(other)
        return -_ON_EDGE <= at + (to - at) * here / (here - there) <= self._length + _ON_EDGE

    def _along(self, point: Point) -> float:
        """How far along the way from start to end a point is, in pixels."""
        x, y = point[0] - self._start[0], point[1] - self._start[1]
        return self._way[0] * x + self._way[1] * y


def keep(detections: Detections, masks: Iterable[Mask], width: int, height: int) -> NDArray[np.bool_]:
    """Which objects of a frame no mask hides.

    Args:
        detections: All objects of the frame.
        masks: The masks of its source; those that hide the picture alone hide no object.
        width: Width of the frame in pixels.
        height: Its height.

    Returns:
        (n,): False where the anchor is inside a mask; for `Detections.select`.
    """
    kept = np.ones(len(detections), np.bool_)
    boxes = detections.boxes_xyxy.astype(np.float64)
    for mask in masks:
        if mask.hides == "picture" or not len(boxes):
            continue
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        points = np.column_stack([middle[:, 0], boxes[:, 3] if mask.anchor == "bottom" else middle[:, 1]])
        kept &= ~Polygon(to_pixels(mask.polygon, mask.coordinates, width, height)).inside(points)
    return kept


def _turn(corner: Point, one: Point, other: Point) -> float:
    """Twice the signed area of a triangle."""
    return (one[0] - corner[0]) * (other[1] - corner[1]) - (one[1] - corner[1]) * (other[0] - corner[0])
