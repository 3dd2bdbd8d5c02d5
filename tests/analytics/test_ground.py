from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.analytics.ground import GroundPlane, check_ground
from pipeline.errors import ConfigError
from pipeline.messages import Coordinates, Ground, Point

Four = tuple[Point, Point, Point, Point]
WIDTH, HEIGHT = 1280, 720
#: A camera 5 m above the ground that looks 30 degrees down along +y; the point below it is (0, 0).
CAMERA_HEIGHT, TILT, FOCAL = 5.0, math.radians(30), 1000.0
#: Row of its horizon.
HORIZON = HEIGHT / 2 - FOCAL * math.tan(TILT)
PARKING: Four = ((-2.0, 6.0), (2.5, 6.0), (3.0, 14.0), (-3.0, 12.0))


def pinhole(x: float, y: float) -> Point:
    """Where the camera sees a point of the ground; plain trigonometry, no matrix."""
    deep = y * math.cos(TILT) + CAMERA_HEIGHT * math.sin(TILT)
    down = CAMERA_HEIGHT * math.cos(TILT) - y * math.sin(TILT)
    return (WIDTH / 2 + FOCAL * x / deep, HEIGHT / 2 + FOCAL * down / deep)


def four(points: list[Point]) -> Four:
    one, two, three, last = points
    return (one, two, three, last)


def calibration(metres: Four = PARKING, coordinates: Coordinates = "pixels") -> Ground:
    seen = [pinhole(*point) for point in metres]
    if coordinates == "normalized":
        seen = [(x / WIDTH, y / HEIGHT) for x, y in seen]
    return Ground(four(seen), metres, coordinates)


@pytest.mark.parametrize("coordinates", ["pixels", "normalized"])
def test_the_four_points_are_where_they_were_said_to_be(coordinates: Coordinates) -> None:
    plane = GroundPlane(calibration(coordinates=coordinates), WIDTH, HEIGHT)
    assert plane.to_ground([pinhole(*point) for point in PARKING]) == pytest.approx(
        np.array(PARKING), abs=1e-9
    )


@given(x=st.floats(-20, 20), y=st.floats(2, 100))
def test_a_known_camera(x: float, y: float) -> None:
    """All of the ground comes out as trigonometry says, though only four points of it are given."""
    plane = GroundPlane(calibration(), WIDTH, HEIGHT)
    assert plane.to_ground([pinhole(x, y)])[0] == pytest.approx([x, y], rel=1e-6, abs=1e-6)
    assert plane.to_picture([(x, y)])[0] == pytest.approx(pinhole(x, y), rel=1e-6, abs=1e-6)


#: How far each corner of a square is moved, as shares of its side: never so far that it loses its shape.
NUDGES = st.lists(st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)), min_size=4, max_size=4)


def nudged(nudges: list[Point]) -> NDArray[np.float64]:
    return np.array([(0.25, 0.75), (0.75, 0.75), (0.75, 0.25), (0.25, 0.25)]) + nudges


@given(
    seen=NUDGES,
    real=NUDGES,
    size_m=st.floats(0.1, 500),
    turn=st.floats(0, math.tau),
    points=st.lists(st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT)), min_size=1, max_size=8),
)
def test_there_and_back_again(
    seen: list[Point], real: list[Point], size_m: float, turn: float, points: list[Point]
) -> None:
    rotate = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    metres = (nudged(real) * size_m @ rotate.T).tolist()
    plane = GroundPlane(Ground(four(nudged(seen).tolist()), four(metres)), WIDTH, HEIGHT)
    found = plane.to_ground(points)
    there = np.isfinite(found).all(axis=1)
    assert np.isnan(found[~there]).all()
    assert plane.to_picture(found[there]) == pytest.approx(np.array(points)[there], abs=1e-6)


def test_nothing_at_and_beyond_the_horizon() -> None:
    plane = GroundPlane(calibration(), WIDTH, HEIGHT)
    rows = np.linspace(HORIZON - 500, HORIZON + 1000, 4001)
    found = plane.to_ground(np.column_stack([np.full(len(rows), WIDTH / 2), rows]))
    seen = np.isfinite(found[:, 1])
    assert not seen[rows <= HORIZON].any()
    # The farthest corner is 14.6 m deep; there is ground up to 25 times as far, and further down all of it.
    assert np.nanmax(found[:, 1]) == pytest.approx(25 * 14.6 / math.cos(TILT), rel=0.1)
    assert seen[rows > HORIZON + 20].all()
    assert (np.diff(found[seen, 1]) < 0).all()
    assert np.isnan(plane.to_ground([[math.nan, 500.0]])).all()
    assert math.isnan(plane.metres_per_pixel(WIDTH / 2, HORIZON - 1))
    assert np.isnan(plane.to_picture([(0.0, -50.0)])).all()  # behind the camera
    assert plane.to_ground(np.zeros((0, 2))).shape == (0, 2)


@given(x=st.floats(0, WIDTH), y=st.floats(HORIZON + 100, HEIGHT))
def test_length_of_a_pixel(x: float, y: float) -> None:
    plane = GroundPlane(calibration(), WIDTH, HEIGHT)
    turns = np.linspace(0, math.tau, 721)
    ring = plane.to_ground(np.column_stack([x + 1e-3 * np.cos(turns), y + 1e-3 * np.sin(turns)]))
    longest = np.hypot(*(ring - plane.to_ground([(x, y)])).T).max() / 1e-3
    assert plane.metres_per_pixel(x, y) == pytest.approx(float(longest), rel=1e-3)


SQUARE: NDArray[np.float64] = np.array([(0.2, 0.8), (0.8, 0.8), (0.7, 0.4), (0.3, 0.4)])
ROOM: Four = ((0.0, 0.0), (4.0, 0.0), (4.0, 6.0), (0.0, 6.0))


def square(order: str = "0123") -> Four:
    return four([(float(x), float(y)) for x, y in SQUARE[[int(at) for at in order]]])


@pytest.mark.parametrize(
    ("ground", "words"),
    [
        (Ground(square("0213"), ROOM), "order"),
        (Ground(square("1023"), ROOM), "order"),
        (Ground(((0.1, 0.5), (0.4, 0.5), (0.9, 0.5), (0.5, 0.9)), ROOM), "points 1, 2, 3 of g.points"),
        (Ground(square(), ((0, 0), (0, 0), (4, 6), (0, 6))), "points 1, 2, 3 of g.metres"),
        (Ground(square(), ((0, 0), (4, 0), (2, 3), (0, 6))), "points 2, 3, 4 of g.metres"),
        (Ground(((0.2, 80), (0.8, 0.8), (0.7, 0.4), (0.3, 0.4)), ROOM), "between 0 and 1"),
        (Ground(square(), ((0, 0), (4, 0), (4, math.inf), (0, 6))), "inf"),
        (Ground(square()[:3], ROOM), "3 points"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_calibration(ground: Ground, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_ground("g", ground)
    assert caught.value.hint


@pytest.mark.parametrize("metres", [ROOM, tuple((y, x) for x, y in ROOM), tuple((-x, y) for x, y in ROOM)])
def test_axes_of_the_ground_may_point_anywhere(metres: Four) -> None:
    plane = GroundPlane(Ground(square(), metres), 100, 100)
    assert plane.to_ground(SQUARE * 100) == pytest.approx(np.array(metres), abs=1e-9)
