from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analytics.movement import Movement
from pipeline.analytics.objects import Box, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader, Ground, Point, Scene
from tests.analytics.test_ground import HEIGHT, HORIZON, WIDTH, calibration, pinhole

SCENE = Scene(ground=calibration())


def header(at_s: float) -> FrameHeader:
    return FrameHeader("gate", 0, 0, round(at_s * 1e9), 0, at_s, "container", WIDTH, HEIGHT)


def box_at(foot: Point, height: float = 120.0) -> Box:
    x, y = foot
    return (x - height / 5, y - height, x + height / 5, y)


class Walk:
    """One object that goes through a `Movement`."""

    def __init__(self, scene: Scene = SCENE, noise_px: float = 0.0) -> None:
        self.movement = Movement(scene)
        self.item: TrackedObject | None = None
        self.noise_px = noise_px
        self.dice = np.random.default_rng(7)

    def step(self, at_s: float, box: Box, motion: NDArray[np.float64] | None = None) -> TrackedObject:
        now = header(at_s)
        self.movement.begin(now, motion)
        if self.item is None:
            self.item = TrackedObject(1, now, now)
        noise = self.dice.uniform(-self.noise_px, self.noise_px, 4)
        x1, y1, x2, y2 = (np.array(box) + noise).tolist()
        self.item.last, self.item.box = now, (x1, y1, x2, y2)
        assert not list(self.movement.see(self.item))
        return self.item

    def go(self, times: Iterable[float], place: Callable[[float], Point]) -> list[TrackedObject]:
        """Feet on the ground, seen by the camera of test_ground; what was known after each frame."""
        known = []
        for at_s in times:
            x, y = pinhole(*place(at_s))
            item = self.step(at_s, box_at((x, y), 1750 / (place(at_s)[1] * 0.866 + 2.5)))
            known.append(
                TrackedObject(
                    1, item.first, item.last, box=item.box, stationary=item.stationary, path=list(item.path),
                    speed_mps=item.speed_mps, distance_m=item.distance_m,
                )
            )  # fmt: skip
        return known


EVEN = [n / 30 for n in range(301)]
#: 30 frames a second, of which in each second all between 0.2 s and 0.7 s were dropped.
BURSTS = [at for at in EVEN if not 0.2 < at % 1 < 0.7]
#: Half of the frames, drawn by chance.
CHANCE = [at for at, kept in zip(EVEN, np.random.default_rng(1).random(301) < 0.5, strict=True) if kept]
SLOW = [n * 0.7 for n in range(15)]


@pytest.mark.parametrize("times", [EVEN, BURSTS, CHANCE, SLOW], ids=["even", "bursts", "chance", "slow"])
@pytest.mark.parametrize(("noise_px", "near"), [(0.0, 0.001), (1.0, 0.08)])
@pytest.mark.parametrize(
    ("start", "way"), [((-7.5, 14.0), (1.5, 0.0)), ((0.0, 6.0), (0.0, 1.5)), ((-4.5, 8.0), (0.9, 1.2))]
)
def test_a_walker_at_1_5_metres_a_second(
    times: list[float], noise_px: float, near: float, start: Point, way: Point
) -> None:
    walk = Walk(noise_px=noise_px)
    known = walk.go(times, lambda at: (start[0] + way[0] * at, start[1] + way[1] * at))
    speeds = [one.speed_mps for one in known if one.speed_mps is not None]
    assert np.median(speeds) == pytest.approx(1.5, rel=0.02)
    assert np.percentile(speeds, [10, 90]) == pytest.approx([1.5, 1.5], rel=near)
    length = 1.5 * (times[-1] - times[0])
    assert known[-1].distance_m == pytest.approx(length, rel=0.02, abs=0.25)
    assert all(one.stationary is False for one in known[len(known) // 3 :])
    ways = [one.distance_m or 0.0 for one in known]
    assert ways == sorted(ways)


def test_no_speed_before_half_a_second() -> None:
    known = Walk().go(EVEN[:31], lambda at: (1.5 * at, 8))
    assert [one.speed_mps is None for one in known] == [at < 0.5 for at in EVEN[:31]]
    assert known[0].distance_m == 0.0


def test_who_stands_gets_nowhere() -> None:
    walk = Walk(noise_px=2.0)
    known = walk.go([n / 15 for n in range(15 * 120)], lambda _: (0, 9))
    assert [one.stationary for one in known[:45]] == [None] * 45
    assert {one.stationary for one in known[46:]} == {True}
    assert {one.distance_m for one in known} == {0.0}
    assert max(one.speed_mps for one in known if one.speed_mps is not None) < 0.2
    assert len(known[-1].path) == 2


def test_who_stands_far_away_gets_nowhere() -> None:
    """Where a pixel is a quarter of a metre, and the box is 20 pixels high."""
    walk = Walk(noise_px=2.0)
    for n in range(600):
        item = walk.step(n / 10, box_at(pinhole(0, 26), 20))
    assert item.stationary is True
    assert item.distance_m == 0.0


def test_goes_stands_and_goes_again() -> None:
    def place(at: float) -> Point:
        return (-3 + 1.2 * min(at, 3.0) + 1.2 * max(at - 13.0, 0.0), 9)

    times = [n / 20 for n in range(20 * 16)]
    known = Walk(noise_px=1.5).go(times, place)
    first = next(at for at, one in zip(times, known, strict=True) if one.stationary)
    again = next(at for at, one in zip(times, known, strict=True) if at > first and not one.stationary)
    assert 6.0 <= first <= 6.5
    assert 13.0 < again < 13.7
    assert known[-1].distance_m == pytest.approx(1.2 * 6, rel=0.04)
    # The pause is in the path, at its own time.
    assert where(known[-1].path, 12.5)[0] == pytest.approx(where(known[-1].path, 4.0)[0], abs=0.01)


def test_creeping_does_not_blink() -> None:
    """As slow as what counts as staying, or slower or faster: it is the one or the other."""
    for pace in np.linspace(0.5, 6, 12):  # pixels a second; the box is 76 in size
        walk = Walk(Scene(), noise_px=1.0)
        said = [walk.step(n / 10, box_at((300 + pace * n / 10, 500))).stationary for n in range(600)]
        turns = sum(one != other for one, other in pairwise(said))
        assert turns <= 2, f"{turns} turns at {pace} px/s"


def test_a_camera_that_moves() -> None:
    """Something that stands, seen from a camera that pans: at rest once its motion is taken off."""
    for known, expected in ((True, True), (False, False)):
        walk = Walk(Scene())
        for n in range(60):
            shift = np.array([[1.0, 0.0, 8.0], [0.0, 1.0, -1.0]]) if known else None
            item = walk.step(n / 10, box_at((300 + 8 * n, 500 - n)), shift)
        assert item.stationary is expected


def test_the_ground_of_a_car_is_not_calibrated() -> None:
    known = Walk(Scene(ground=SCENE.ground, moving=True)).go(EVEN[:60], lambda at: (at, 8))
    assert {(one.speed_mps, one.distance_m) for one in known} == {(None, None)}


def test_without_ground() -> None:
    item = Walk(Scene()).step(0, box_at((300, 500)))
    assert (item.speed_mps, item.distance_m, item.stationary) == (None, None, None)
    assert item.path == [(0.0, 300 / WIDTH, 500 / HEIGHT)]


@pytest.mark.parametrize(
    "foot",
    [(600.0, HORIZON - 40), (600.0, HORIZON + 1), (600.0, HEIGHT), (10.0, 500.0), (WIDTH - 5.0, 500.0)],
    ids=["sky", "horizon", "bottom", "left", "right"],
)
def test_nobody_knows_where_it_stands(foot: Point) -> None:
    walk = Walk()
    for n in range(20):
        item = walk.step(n / 10, box_at((600, 500)))
    assert item.speed_mps is not None
    for n in range(20, 40):
        item = walk.step(n / 10, box_at(foot))
        assert item.speed_mps is None
    assert item.distance_m == 0.0


def where(path: list[tuple[float, float, float]], at_s: float) -> Point:
    times, xs, ys = zip(*path, strict=True)
    return (float(np.interp(at_s, times, xs)), float(np.interp(at_s, times, ys)))


def test_a_path_keeps_its_shape() -> None:
    """Ten minutes in 64 points: 100 s on a spiral, a long stand, and a way back."""

    def place(at: float) -> Point:
        if at > 500:
            return (0.3 + (at - 500) * 0.004, 0.6 + (at - 500) * 0.003)
        turn = min(at, 100.0) / 100 * 3 * math.tau
        return (0.5 + 0.3 * turn / 20 * math.cos(turn), 0.5 + 0.4 * turn / 20 * math.sin(turn))

    walk = Walk(Scene(), noise_px=1.0)
    times = [n / 10 for n in range(6001)]
    for at in times:
        x, y = place(at)
        item = walk.step(at, box_at((x * WIDTH, y * HEIGHT)))
        assert len(item.path) <= 64
        assert item.path[-1] == (at, (item.box[0] + item.box[2]) / 2 / WIDTH, item.box[3] / HEIGHT)
    stamps = [at for at, _, _ in item.path]
    assert stamps == sorted(set(stamps))
    assert item.path[0][1:] == pytest.approx(place(0), abs=0.003)
    errors = [math.dist(where(item.path, at), place(at)) for at in times]
    assert np.mean(errors) < 0.006
    assert np.percentile(errors, 98) < 0.03


def test_another_scene_while_it_goes_on() -> None:
    walk = Walk(Scene())
    walk.go(EVEN[:30], lambda at: (1.5 * at, 8))
    walk.movement.adopt(SCENE)
    known = walk.go(EVEN[30:90], lambda at: (1.5 * at, 8))
    assert known[-1].speed_mps == pytest.approx(1.5, rel=0.001)
    assert known[-1].distance_m == pytest.approx(1.5 * 59 / 30, abs=0.15)
    with pytest.raises(ConfigError, match="ground"):
        walk.movement.adopt(Scene(ground=Ground(((0, 0), (0, 0), (1, 1), (0, 1)), SCENE_METRES)))


SCENE_METRES = calibration().metres


def test_nothing_is_kept_of_who_has_gone() -> None:
    walk = Walk()
    item = walk.step(0, box_at((600, 500)))
    walk.movement.leave(item, "lost")
    walk.movement.leave(item, "lost")
    assert not walk.movement._objects


@pytest.mark.parametrize("options", [{"stationary_s": 0.0}, {"stationary_s": math.inf}, {"path_points": 3}])
def test_options(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Movement(Scene(), **options)  # type: ignore[arg-type]
