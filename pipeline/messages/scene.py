"""What a source's picture shows, as its owner has drawn it: zones, lines, masks and the ground."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Anchor", "Coordinates", "Filter", "Ground", "Line", "Mask", "Point", "Scene", "Zone"]

Point = tuple[float, float]
#: ``normalized``: 0..1 of the frame's width and height. ``pixels``: of the source frame.
Coordinates = Literal["normalized", "pixels"]
#: The point of a box that counts: the middle of its lower edge (where an object stands), or of the box.
Anchor = Literal["bottom", "center"]


class Filter(msgspec.Struct, frozen=True):
    """Which objects count. Each limit holds in the frame at hand.

    Attributes:
        labels: Labels that count; None for all.
        confidence: Lowest score, 0..1.
        min_area: Smallest area of the box, as a share of the frame's, 0..1.
        max_area: Largest area, the same way.
        min_aspect: Smallest width divided by height.
        max_aspect: Largest width divided by height.
    """

    labels: tuple[str, ...] | None = None
    confidence: float = 0.0
    min_area: float = 0.0
    max_area: float = 1.0
    min_aspect: float = 0.0
    max_aspect: float = float("inf")


class Zone(msgspec.Struct, frozen=True):
    """An area in which objects are counted and timed.

    Attributes:
        polygon: Its corners, at least three; the last is joined to the first.
        coordinates: What the corners are measured in.
        anchor: Which point of a box has to be inside.
        only: Which objects count.
        enter_s: An object is in once it has been inside for so long without a break, seconds.
        exit_s: It is out once it has been outside for so long without a break, seconds.
        dwell_s: It loiters once it has been in for so long, seconds; None for never.
        crowd: Objects from which the zone is crowded; None for never.
        crowd_s: How long there must be that many, or fewer again, seconds.
    """

    polygon: tuple[Point, ...]
    coordinates: Coordinates = "normalized"
    anchor: Anchor = "bottom"
    only: Filter = Filter()
    enter_s: float = 0.0
    exit_s: float = 0.5
    dwell_s: float | None = None
    crowd: int | None = None
    crowd_s: float = 1.0


class Line(msgspec.Struct, frozen=True):
    """A line whose crossing is an event.

    Who walks from ``start`` to ``end`` has ``left`` at the left hand, as seen in the picture.

    Attributes:
        start: One end.
        end: The other.
        left: Name of the side on the left of the way from start to end: the direction of who comes there.
        right: Name of the other side.
        coordinates: What the points are measured in.
        anchor: Which point of a box has to cross.
        only: Which objects count.
        margin: How far beyond the line an object must be to have crossed, as a share of its box's height:
            one that stands on the line and sways crosses nothing.
    """

    start: Point
    end: Point
    left: str = "out"
    right: str = "in"
    coordinates: Coordinates = "normalized"
    anchor: Anchor = "bottom"
    only: Filter = Filter()
    margin: float = 0.05


class Mask(msgspec.Struct, frozen=True):
    """An area that is not looked at, or not shown.

    Attributes:
        polygon: Its corners, at least three.
        coordinates: What the corners are measured in.
        hides: ``detections``: objects whose anchor is inside do not exist. ``picture``: the area is hidden in
            every picture that leaves the process. ``both``.
        anchor: Which point of a box has to be inside.
    """

    polygon: tuple[Point, ...]
    coordinates: Coordinates = "normalized"
    hides: Literal["detections", "picture", "both"] = "detections"
    anchor: Anchor = "bottom"


class Ground(msgspec.Struct, frozen=True):
    """Four points of the picture whose place on flat ground is known.

    Attributes:
        points: In the picture, no three on one line.
        metres: The same points on the ground, (x, y) in metres in any frame of reference.
        coordinates: What ``points`` are measured in.
    """

    points: tuple[Point, Point, Point, Point]
    metres: tuple[Point, Point, Point, Point]
    coordinates: Coordinates = "normalized"


class Scene(msgspec.Struct, frozen=True):
    """All that is known of one source's picture.

    Attributes:
        zones: By name.
        lines: By name.
        masks: By name.
        ground: Its calibration; None where there is none.
        moving: Whether the camera itself moves, as in a car.
    """

    zones: dict[str, Zone] = {}
    lines: dict[str, Line] = {}
    masks: dict[str, Mask] = {}
    ground: Ground | None = None
    moving: bool = False
