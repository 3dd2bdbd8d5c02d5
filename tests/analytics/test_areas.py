"""What lies where, against a second way of finding out."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analytics.areas import Polygon, Segment, anchor_of, check_points, keep, matches, to_pixels
from pipeline.errors import ConfigError
from pipeline.messages import Detections, Filter, Mask, Point

SQUARE = ((10.0, 10.0), (30.0, 10.0), (30.0, 30.0), (10.0, 30.0))
#: A U, open above: its two legs and the floor between them are inside, the gap is not.
U = ((0.0, 0.0), (10.0, 0.0), (10.0, 30.0), (30.0, 30.0), (30.0, 0.0), (40.0, 0.0), (40.0, 40.0), (0.0, 40.0))


@st.composite
def polygons(draw: st.DrawFn) -> tuple[Point, ...]:
    """Simple polygons with whole corners: around a middle, at rising angles and any distance from it."""
    angles = draw(st.lists(st.integers(0, 359), min_size=3, max_size=9, unique=True))
    corners = []
    for angle in sorted(angles):
        far = draw(st.integers(20, 100))
        corners.append(
            (float(far * math.cos(math.radians(angle))), float(far * math.sin(math.radians(angle))))
        )
    return tuple((round(x) + 100.0, round(y) + 100.0) for x, y in corners)


points = st.tuples(st.integers(-10, 210), st.integers(-10, 210))


def winding(polygon: tuple[Point, ...], point: tuple[int, int]) -> float:
    """How many times the polygon goes around a point: the sum of the angles that its edges span."""
    total = 0.0
    corners = [(x - point[0], y - point[1]) for x, y in polygon]
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        total += math.atan2(ax * by - ay * bx, ax * bx + ay * by)
    return total / (2 * math.pi)


def on_edge(polygon: tuple[Point, ...], point: tuple[int, int]) -> bool:
    """Whether a point of whole numbers lies on an edge between whole corners, exactly."""
    x, y = point
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        straight = (bx - ax) * (y - ay) == (by - ay) * (x - ax)
        if straight and min(ax, bx) <= x <= max(ax, bx) and min(ay, by) <= y <= max(ay, by):
            return True
    return False


@given(polygon=polygons(), asked=st.lists(points, min_size=1, max_size=8))
def test_inside_is_what_the_polygon_goes_around(
    polygon: tuple[Point, ...], asked: list[tuple[int, int]]
) -> None:
    """Odd windings, for rounded corners may make a polygon that touches itself."""
    corners = list(polygon)  # corners are asked for, too: nothing is nearer to the boundary
    asked = asked + [(int(x), int(y)) for x, y in corners]
    expected = [on_edge(polygon, one) or round(winding(polygon, one)) % 2 == 1 for one in asked]
    area = Polygon(polygon)
    assert [area.contains(*one) for one in asked] == expected
    assert area.inside(np.array(asked, np.float64)).tolist() == expected


@given(polygon=polygons(), point=points)
def test_inside_is_what_opencv_says(polygon: tuple[Point, ...], point: tuple[int, int]) -> None:
    expected = cv2.pointPolygonTest(np.array(polygon, np.float32).reshape(-1, 1, 2), point, False) >= 0
    assert Polygon(polygon).contains(*point) == expected


@given(
    polygon=polygons(),
    asked=st.lists(points, min_size=1, max_size=8),
    first=st.integers(0, 8),
    move=st.tuples(st.integers(-999, 999), st.integers(-999, 999)),
    scale=st.sampled_from([0.125, 0.5, 3, 16]),
)
def test_direction_first_corner_place_and_size_do_not_matter(
    polygon: tuple[Point, ...], asked: list[tuple[int, int]], first: int, move: tuple[int, int], scale: float
) -> None:
    expected = [Polygon(polygon).contains(*one) for one in asked]
    turned = polygon[first:] + polygon[:first]

    def shifted(one: tuple[float, float]) -> Point:
        return (one[0] * scale + move[0], one[1] * scale + move[1])

    for other in (polygon[::-1], turned, (polygon[0], *polygon)):
        assert [Polygon(other).contains(*one) for one in asked] == expected
    there = Polygon([shifted(one) for one in polygon])
    assert [there.contains(*shifted(one)) for one in asked] == expected


@given(
    polygon=polygons(),
    asked=st.lists(points, min_size=1, max_size=8),
    size=st.sampled_from([(1920, 1080), (641, 479)]),
)
def test_normalised_and_pixel_coordinates_agree(
    polygon: tuple[Point, ...], asked: list[tuple[int, int]], size: tuple[int, int]
) -> None:
    """Boundary included: a corner that is divided and multiplied again is not quite where it was."""
    width, height = size
    share = tuple((x / width, y / height) for x, y in polygon)
    asked = asked + [(int(x), int(y)) for x, y in polygon]
    drawn = Polygon(to_pixels(polygon, "pixels", width, height))
    divided = Polygon(to_pixels(share, "normalized", width, height))
    assert [divided.contains(*one) for one in asked] == [drawn.contains(*one) for one in asked]
    assert divided.inside(np.array(asked)).tolist() == drawn.inside(np.array(asked)).tolist()


@pytest.mark.parametrize(
    ("point", "inside"),
    [
        ((5, 5), True),  # the left leg
        ((20, 35), True),  # the floor
        ((35, 5), True),  # the right leg
        ((20, 5), False),  # the gap
        ((20, 29.99), False),  # just above the floor
        ((20, 30), True),  # on its edge
        ((10, 0), True),  # on a corner
        ((20, 0), False),  # between the corners, on the height of two edges
        ((45, 40), False),  # on the extension of an edge
        ((-0.001, 20), False),
    ],
)
def test_a_concave_area(point: Point, inside: bool) -> None:
    assert Polygon(U).contains(*point) is inside
    assert Polygon(U).inside(np.array([point], np.float32)).tolist() == [inside]


def test_no_points_no_answers() -> None:
    assert Polygon(U).inside(np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize(
    ("start", "end", "point", "distance"),
    [
        # to the right: the left hand is the upper part of the picture
        ((0, 50), (100, 50), (40, 20), 30),
        ((0, 50), (100, 50), (40, 70), -20),
        ((0, 50), (100, 50), (40, 50), 0),
        # down the picture: the left hand is its right part
        ((50, 0), (50, 100), (80, 40), 30),
        ((50, 0), (50, 100), (10, 40), -40),
        # up: its left part
        ((50, 100), (50, 0), (10, 40), 40),
        # beyond the ends the line goes on
        ((0, 50), (100, 50), (900, 20), 30),
        # down and to the right: upper right is left
        ((0, 0), (30, 40), (30, 0), 24),
    ],
)
def test_left_is_the_left_hand_in_the_picture(
    start: Point, end: Point, point: Point, distance: float
) -> None:
    assert Segment(start, end).left_of(point) == pytest.approx(distance)
    assert Segment(end, start).left_of(point) == pytest.approx(-distance)


@pytest.mark.parametrize(
    ("point", "distance"), [((50, 20), 30), ((50, 90), 40), ((-30, 10), 50), ((103, 54), 5), ((60, 50), 0)]
)
def test_how_far_from_a_segment(point: Point, distance: float) -> None:
    assert Segment((0, 50), (100, 50)).distance(point) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("one", "other", "parts"),
    [
        ((50, 40), (50, 60), True),
        ((50, 60), (50, 40), True),
        ((50, 40), (60, 45), False),  # on one side
        ((120, 40), (120, 60), False),  # past the end
        ((90, 40), (120, 60), False),  # past the end, by little: over the line at 105
        ((90, 40), (110, 60), True),  # over its very end
        ((50, 40), (50, 50), True),  # on to the line: it counts as its right side
        ((50, 50), (50, 60), False),  # and off it: nothing more
        ((50, 50), (50, 40), True),  # or back
    ],
)
def test_what_a_segment_parts(one: Point, other: Point, parts: bool) -> None:
    assert Segment((0, 50), (100, 50)).parts(one, other) is parts


@given(steps=st.lists(st.tuples(st.integers(1, 99), st.integers(45, 55)), min_size=2, max_size=9))
def test_a_way_in_steps_crosses_as_often_as_it_changes_sides(steps: list[Point]) -> None:
    line = Segment((0, 50), (100, 50))
    times = sum(line.parts(a, b) for a, b in pairwise(steps))
    assert times % 2 == (steps[0][1] < 50) ^ (steps[-1][1] < 50)


@given(
    box=st.tuples(*[st.integers(0, 99)] * 2, *[st.integers(100, 199)] * 2),
    only=st.builds(
        Filter,
        labels=st.sampled_from([None, ("person",), ("car", "dog"), ()]),
        confidence=st.sampled_from([0.0, 0.5, 0.7]),
    ),
    label=st.sampled_from(["person", "car"]),
    score=st.sampled_from([0.49, 0.5, float(np.float32(0.7)), 1.0]),
)
def test_labels_and_scores(
    box: tuple[float, float, float, float], only: Filter, label: str, score: float
) -> None:
    expected = (only.labels is None or label in only.labels) and score >= only.confidence - 1e-6
    assert matches(only, label, score, box, 200, 200) is expected


@pytest.mark.parametrize(
    ("only", "box", "fits"),
    [
        (Filter(min_area=0.01), (0, 0, 10, 20), True),  # 200 of 20000 pixels: the limit counts
        (Filter(min_area=0.01), (0, 0, 10, 19), False),
        (Filter(max_area=0.01), (0, 0, 10, 20), True),
        (Filter(max_area=0.01), (0, 0, 10, 21), False),
        (Filter(min_aspect=0.5), (0, 0, 10, 20), True),
        (Filter(min_aspect=0.5), (0, 0, 10, 21), False),
        (Filter(max_aspect=0.5), (0, 0, 10, 20), True),
        (Filter(max_aspect=0.5), (0, 0, 11, 20), False),
        (Filter(), (-50, -50, 400, 400), True),  # larger than the frame is as large as the frame
        (Filter(), (5, 5, 5, 5), True),
        (Filter(max_aspect=9.0), (5, 5, 9, 5), False),
    ],
)
def test_sizes(only: Filter, box: tuple[float, float, float, float], fits: bool) -> None:
    assert matches(only, "person", 0.5, box, 200, 100) is fits


def test_anchors() -> None:
    assert anchor_of((10, 20, 30, 60), "bottom") == (20, 60)
    assert anchor_of((10, 20, 30, 60), "center") == (20, 40)


def test_masks_hide_objects_by_their_anchor() -> None:
    feet, middle, outside = (15, 0, 25, 15), (15, 15, 25, 25), (50, 50, 60, 60)
    objects = Detections([feet, middle, outside], [0.9] * 3, [0] * 3)
    assert keep(objects, [], 100, 100).tolist() == [True, True, True]
    assert keep(objects, [Mask(SQUARE, "pixels")], 100, 100).tolist() == [False, False, True]
    assert keep(objects, [Mask(SQUARE, "pixels", anchor="center")], 100, 100).tolist() == [True, False, True]
    assert keep(objects, [Mask(SQUARE, "pixels", hides="picture")], 100, 100).all()
    half = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    masks = [Mask(SQUARE, "pixels", hides="both"), Mask(half)]
    assert keep(objects, masks, 100, 100).tolist() == [False, False, False]
    assert keep(Detections.empty(), masks, 100, 100).shape == (0,)
    assert len(objects.select(keep(objects, masks[:1], 100, 100))) == 1


@pytest.mark.parametrize(
    ("points", "coordinates", "least", "message"),
    [
        (((0, 0), (1, 1)), "normalized", 3, "zones.yard.polygon has 2 points"),
        (((0, 0), (1, math.nan), (1, 0)), "pixels", 3, r"the point \[1, nan\]"),
        (((0, 0), (640, 0), (640, 480)), "normalized", 3, r"\[640, 0\], but normalized points lie between"),
        (((0, 0), (0.5, 0.5), (1, 1)), "normalized", 3, "encloses no area"),
        (((5, 5), (5, 5), (5, 5)), "pixels", 3, "encloses no area"),
        (((0.5, 0.5), (0.5, 0.5)), "normalized", 2, "starts where it ends"),
    ],
)
def test_points_that_cannot_be(points: tuple[Point, ...], coordinates: str, least: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        check_points("zones.yard.polygon", points, coordinates, least)  # type: ignore[arg-type]
    assert raised.value.hint
