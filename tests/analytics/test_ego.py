"""When the camera itself moves, and when it only trembles."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analytics.ego import CameraState
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader

WIDTH, HEIGHT = 1280, 720
Motion = NDArray[np.float64]


def header(at_s: float) -> FrameHeader:
    return FrameHeader("car", 0, 0, round(at_s * 1e9), 0, at_s, "container", WIDTH, HEIGHT)


def shift(dx: float, dy: float = 0.0) -> Motion:
    return np.array([[1.0, 0, dx], [0, 1, dy]])


def growth(scale: float) -> Motion:
    return np.array([[scale, 0, (1 - scale) * WIDTH / 2], [0, scale, (1 - scale) * HEIGHT / 2]])


def states(steps: Iterable[tuple[float, Motion | None]], **options: float) -> list[tuple[float, str]]:
    camera, told = CameraState(**options), []
    for at_s, motion in steps:
        camera.begin(header(at_s), motion)
        told += [(at_s, fact.fields["state"]) for fact in camera.finish(())]
    if told:
        assert camera.state == told[-1][1]
    return told


def drive(
    fps: float, *parts: tuple[float, Callable[[int], Motion | None]]
) -> list[tuple[float, Motion | None]]:
    """Parts of a drive: until which second, and the motion of each frame."""
    steps: list[tuple[float, Motion | None]] = []
    for until_s, motion in parts:
        while len(steps) / fps < until_s:
            steps.append((len(steps) / fps, motion(len(steps))))
    return steps


@pytest.mark.parametrize("fps", [5, 10, 25, 60])
@pytest.mark.parametrize(
    ("motion_per_s", "expected"),
    [
        (lambda per: shift(0), "still"),
        # straight ahead on a motorway: nothing but growth, a fifth in a second
        (lambda per: growth(1.2**per), "moving"),
        # at walking pace, one in thirty
        (lambda per: growth(1.033**per), "moving"),
        (lambda per: shift(40 * per), "moving"),
        # creep of an estimate
        (lambda per: shift(2 * per, per), "still"),
        # between the limits: nobody knows
        (lambda per: shift(11 * per), None),
    ],
)
def test_the_first_state(fps: float, motion_per_s: Callable[[float], Motion], expected: str | None) -> None:
    told = states(drive(fps, (3, lambda _: motion_per_s(1 / fps))))
    assert [state for _, state in told] == ([] if expected is None else [expected])
    if told:
        assert 1.0 <= told[0][0] <= 1.8


def test_who_trembles_stands() -> None:
    random = np.random.default_rng(0)
    places = random.normal(0, 4, (200, 2))
    ways = np.diff(places, axis=0)
    storm = states(drive(25, (6, lambda at: shift(*ways[at]))))
    assert "moving" not in [state for _, state in storm]
    places /= 3
    ways = np.diff(places, axis=0)
    assert [state for _, state in states(drive(25, (6, lambda at: shift(*ways[at]))))] == ["still"]


def test_stop_and_go() -> None:
    told = states(
        drive(25, (4, lambda _: growth(1.005)), (9, lambda _: shift(0)), (12, lambda _: growth(1.005)))
    )
    assert [state for _, state in told] == ["moving", "still", "moving"]
    assert 4 < told[1][0] < 5.5
    assert 9 < told[2][0] < 10


def test_a_short_jolt_changes_nothing() -> None:
    jolt = [shift(0, 30), shift(0, -10), shift(0, -20)]
    told = states(
        drive(25, (3, lambda _: shift(0)), (3.12, lambda at: jolt[at - 75]), (6, lambda _: shift(0)))
    )
    assert [state for _, state in told] == ["still"]


def test_unknown_motion_is_no_standstill() -> None:
    told = states(drive(25, (3, lambda _: growth(1.005)), (8, lambda _: None), (11, lambda _: growth(1.005))))
    assert [state for _, state in told] == ["moving"]
    assert states(drive(25, (5, lambda _: None))) == []
    # one in three unknown is still enough to tell
    told = states(drive(25, (4, lambda at: None if at % 3 == 0 else growth(1.005))))
    assert [state for _, state in told] == ["moving"]


def test_dropped_frames_count_by_their_time() -> None:
    random, steps, at, last = np.random.default_rng(1), [], 0.0, 0.0
    for _ in range(60):
        at += float(random.choice([0.04, 0.08, 0.2]))
        steps.append((at, growth(1.1 ** (at - last))))
        last = at
    assert [state for _, state in states(steps)] == ["moving"]


def test_it_asks_for_sensible_numbers() -> None:
    for wrong in ({"moving": 0.0}, {"still": 0.02}, {"window_s": -1.0}, {"hold_s": -0.1}, {"still": 0.0}):
        with pytest.raises(ConfigError, match=r"camera\."):
            CameraState(**wrong)
