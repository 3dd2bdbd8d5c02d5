"""Points of a picture and the areas between them: what can be one, and what is wrong with the others."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Annotated, Any

from pydantic import BeforeValidator

__all__ = ["Point", "check_polygon", "spell_point", "turn"]

#: A triangle of this height, as a share of its longest side, is none: 0.1 + 0.2 is not 0.3.
_FLAT = 1e-9


def _point(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be a point, such as [0.2, 0.8]")
    if any(isinstance(part, bool) for part in value):
        raise ValueError("must be a point of two numbers, such as [0.2, 0.8]")
    return value


#: x and y.
Point = Annotated[tuple[float, float], BeforeValidator(_point)]


def spell_point(point: Point) -> str:
    """A point as it is written in a config."""
    return f"[{point[0]:g}, {point[1]:g}]"


def turn(one: Point, two: Point, three: Point, *, flat: float = _FLAT) -> int:
    """Which way the path through three points turns: 1, -1, or 0 where it is straight.

    Args:
        one: The first point.
        two: The second.
        three: The third.
        flat: Up to this height of their triangle, as a share of its longest side, it is straight.
    """
    cross = (two[0] - one[0]) * (three[1] - one[1]) - (two[1] - one[1]) * (three[0] - one[0])
    longest = max(math.dist(one, two), math.dist(two, three), math.dist(three, one))
    return 0 if abs(cross) <= flat * longest**2 else 1 if cross > 0 else -1


def check_polygon(corners: tuple[Point, ...]) -> None:
    """Refuse an area whose boundary meets itself, or that is none.

    Args:
        corners: Three or more.

    Raises:
        ValueError: what is wrong, in words, and after ``; `` what to write instead.
    """
    if all(turn(corners[0], one, other) == 0 for one, other in combinations(corners[1:], 2)):
        raise ValueError("encloses no area; give three corners that are not on one line")
    for point in corners:
        if corners.count(point) > 1:
            raise ValueError(f"has the corner {spell_point(point)} twice; give each once")
    sides = list(zip(corners, (*corners[1:], corners[0]), strict=True))
    for (first, one), (second, other) in combinations(enumerate(sides), 2):
        neighbours = second - first in (1, len(sides) - 1)
        if _meet(*one, *other, neighbours=neighbours):
            shown = [" to ".join(map(spell_point, side)) for side in (one, other)]
            raise ValueError(
                f"crosses itself where {shown[0]} meets {shown[1]}; "
                "give its corners in the order of walking around it"
            )


def _meet(a: Point, b: Point, c: Point, d: Point, *, neighbours: bool) -> bool:
    """Whether two sides of an area have a point in common, besides the corner of neighbours."""
    if neighbours:  # only where one goes back over the other
        corner, one, other = (b, a, d) if b == c else (a, b, c)
        ahead = (one[0] - corner[0]) * (other[0] - corner[0]) + (one[1] - corner[1]) * (other[1] - corner[1])
        return turn(corner, one, other) == 0 and ahead > 0
    turns = turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)
    if turns[0] != turns[1] and turns[2] != turns[3]:
        return True
    return not any(turns) and _overlap(a, b, c, d)


def _overlap(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two pieces of one straight line have a point in common."""
    spans = [(sorted((a[axis], b[axis])), sorted((c[axis], d[axis]))) for axis in (0, 1)]
    return all(one[0] <= other[1] and other[0] <= one[1] for one, other in spans)
