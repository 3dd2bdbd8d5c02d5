"""What comes at the camera is told in time; what stands at the roadside is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.analytics.closing import Closing
from pipeline.analytics.objects import Box, Fact, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import FrameHeader

WIDTH, HEIGHT = 1280, 720
#: Pixels: a field of view of 65 degrees.
FOCAL = 1000.0
#: Height of the camera over the road, metres.
MOUNTED = 1.3
CAR = (1.8, 1.5)
PERSON = (0.6, 1.7)

#: Seconds to (sideways, ahead) in metres.
Track = Callable[[float], tuple[float, float]]
Told = list[tuple[float, str, str, float | None]]


def header(at_s: float) -> FrameHeader:
    return FrameHeader("car", 0, 0, round(at_s * 1e9), 0, at_s, "container", WIDTH, HEIGHT)


def box_of(x: float, ahead: float, size: tuple[float, float] = CAR) -> Box | None:
    """The box of something on the road, cut to the frame; None where nothing is to be seen."""
    if ahead < 0.5:
        return None
    x1, x2 = (WIDTH / 2 + FOCAL * (x + side * size[0] / 2) / ahead for side in (-1, 1))
    y2 = HEIGHT / 2 + FOCAL * MOUNTED / ahead
    y1 = y2 - FOCAL * size[1] / ahead
    x1, x2 = (min(max(x, 0.0), float(WIDTH)) for x in (x1, x2))
    y1, y2 = (min(max(y, 0.0), float(HEIGHT)) for y in (y1, y2))
    return (x1, y1, x2, y2) if x2 - x1 > 4 and y2 - y1 > 4 else None


def moments(fps: float, until_s: float, drop: float = 0.0, seed: int = 0) -> list[float]:
    random = np.random.default_rng(seed)
    return [at / fps for at in range(round(until_s * fps)) if random.random() >= drop]


def noisy(box: Box, noise: float, random: np.random.Generator) -> Box:
    """Each side off by a share of the box's size, and by half a pixel; not at all where that share is 0."""
    x1, y1, x2, y2 = box
    size = np.array([x2 - x1, y2 - y1, x2 - x1, y2 - y1])
    x1, y1, x2, y2 = (np.array(box) + random.normal(0, 1, 4) * (noise * size + 0.5 * (noise > 0))).tolist()
    cut = np.clip([x1, y1, x2, y2], 0, (WIDTH, HEIGHT, WIDTH, HEIGHT)).tolist()
    return (cut[0], cut[1], max(cut[2], cut[0] + 1), max(cut[3], cut[1] + 1))


def watch(
    boxes: Sequence[tuple[float, Box | None]],
    motions: Iterator[NDArray[np.float64]] | None = None,
    closing: Closing | None = None,
    lost_s: float = 1.0,
) -> Told:
    closing = closing or Closing()
    told: Told = []
    item: TrackedObject | None = None
    for at_s, box in boxes:
        now = header(at_s)
        closing.begin(now, None if motions is None else next(motions))
        facts: list[Fact] = []
        if box is not None:
            item = item or TrackedObject(1, now, now)
            item.last, item.box = now, box
            facts += closing.see(item)
        elif item is not None and now.pts_ns - item.last.pts_ns >= lost_s * 1e9:
            facts += closing.leave(item, "lost")
            item = None
        facts += closing.finish([item] if item else [])
        for fact in facts:
            assert fact.type == "closing"
            assert fact.item is not None
            told.append((at_s, fact.fields["action"], fact.fields["severity"], fact.fields.get("ttc_s")))
    return told


def run(
    track: Track,
    *,
    size: tuple[float, float] = CAR,
    fps: float = 25,
    until_s: float = 10.0,
    noise: float = 0.0,
    drop: float = 0.0,
    seed: int = 0,
) -> Told:
    random = np.random.default_rng(seed)
    boxes = []
    for at_s in moments(fps, until_s, drop, seed):
        box = box_of(*track(at_s), size)
        boxes.append((at_s, None if box is None else noisy(box, noise, random)))
    return watch(boxes)


def steady(x: float, ahead: float, speed: float, drift: float = 0.0) -> Track:
    return lambda at_s: (x + drift * at_s, ahead - speed * at_s)


@pytest.mark.parametrize("speed", [4.0, 10.0, 25.0])
@pytest.mark.parametrize(("fps", "drop"), [(60, 0.0), (25, 0.0), (25, 0.5), (10, 0.0), (5.5, 0.0)])
@pytest.mark.parametrize("size", [CAR, PERSON])
def test_ahead_in_the_same_lane(speed: float, fps: float, drop: float, size: tuple[float, float]) -> None:
    contact_s = 6.0
    told = run(steady(0.2, contact_s * speed, speed), size=size, fps=fps, drop=drop, until_s=7.5)
    assert [(action, severity) for _, action, severity, _ in told] == [
        ("start", "notice"), ("update", "warning"), ("update", "critical"), ("end", "critical"),
    ]  # fmt: skip
    for (at_s, _, _, ttc_s), limit in zip(told[:3], (4.0, 2.7, 1.5), strict=True):
        assert ttc_s == pytest.approx(contact_s - at_s, abs=0.15)  # rounding, and what cannot be seen
        far = speed == 25 and limit == 4.0  # it is 100 m ahead, and too small
        assert limit - (1.8 if far else 0.9) < contact_s - at_s <= limit


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("fps", "drop"), [(25, 0.0), (25, 0.3), (12.5, 0.0)])
def test_ahead_with_boxes_that_jump(seed: int, fps: float, drop: float) -> None:
    told = run(steady(-0.3, 60, 10), fps=fps, drop=drop, noise=0.02, seed=seed, until_s=7.5)
    firsts = {severity: at_s for at_s, _, severity, _ in reversed(told)}
    assert [told[0][1], told[-1][1]] == ["start", "end"]
    assert 0.6 < told[0][0] < 3.5  # four seconds are left at 2.0
    assert 2.3 < firsts["warning"] < 4.3
    assert 3.9 < firsts["critical"] < 5.6


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.01, 0.03, 0.05])
@pytest.mark.parametrize("fps", [10, 25])
def test_who_keeps_the_distance_is_not_told(seed: int, noise: float, fps: float) -> None:
    assert run(lambda _: (0.0, 12.0), noise=noise, fps=fps, seed=seed, until_s=12) == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("x", [-3.5, -2.6, 2.6, 3.5, 5.0])
@pytest.mark.parametrize("speed", [5.0, 15.0, 30.0])
def test_parked_cars_pass_at_the_side(seed: int, x: float, speed: float) -> None:
    assert run(steady(x, 80, speed), noise=0.01, seed=seed, until_s=80 / speed + 0.5) == []


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        # it drives away
        (steady(0, 8, -5), []),
        # it comes from the front on the other lane
        (steady(-3.5, 90, 30), []),
        # it closes in slowly: nine seconds
        (lambda at_s: (0.0, 45 - 5 * min(at_s, 4.5)), []),
        # it crosses the road far ahead
        (steady(-8, 30, 0, drift=4), []),
        # it brakes, and then holds the distance
        (lambda at_s: (0.0, 50 - 12 * min(at_s, 2.3)), ["start notice", "update warning", "end warning"]),
        # it comes close and drives away again
        (
            lambda at_s: (0.0, 50 - 12 * min(at_s, 2.3) + 6 * max(at_s - 2.3, 0)),
            ["start notice", "update warning", "end warning"],
        ),
        # it steps aside in time
        (lambda at_s: (min(at_s, 2.5) ** 2, 60 - 12 * at_s), []),
        # it walks in front of the car
        (
            steady(-6.0, 60, 10, drift=1.0),
            ["start notice", "update warning", "update critical", "end critical"],
        ),
    ],
)
def test_other_ways(track: Track, expected: list[str]) -> None:
    told = run(track, until_s=7.0)
    assert [f"{action} {severity}" for _, action, severity, _ in told] == expected


def test_who_turns_gets_wider_and_comes_no_nearer() -> None:
    boxes = [(at_s, (600.0 - 50 * at_s, 300.0, 680.0 + 50 * at_s, 370.0)) for at_s in moments(25, 3)]
    assert watch(boxes) == []


def test_too_small_to_measure() -> None:
    boxes = []
    for at_s in moments(25, 3):
        half = 4 + 4 * at_s
        boxes.append((at_s, (640 - half, 360 - half, 640 + half, 360 + half)))
    assert watch(boxes, closing=Closing(min_height=0.05)) == []
    assert watch(boxes)


def test_who_is_lost_has_ended() -> None:
    track = steady(0, 50, 10)
    boxes = [(at_s, box_of(*track(at_s)) if at_s < 3 else None) for at_s in moments(25, 6)]
    told = watch(boxes, lost_s=2.0)
    assert [told[0][1], told[-1][1]] == ["start", "end"]
    assert 3.5 < told[-1][0] < 3.7
    told = watch(boxes, lost_s=0.2)  # the life cycle forgets it sooner
    assert 3.1 < told[-1][0] < 3.3


def test_a_gap_is_not_measured_over() -> None:
    near, far = box_of(0, 10), box_of(0, 30)
    boxes = [(at_s, far if at_s < 2 else near) for at_s in moments(25, 5) if not 1.5 < at_s < 2.2]
    assert watch(boxes) == []


def test_what_fills_the_frame_is_held_until_it_has_arrived() -> None:
    track = steady(0.0, 24, 8)  # contact at 3 s; from 2.6 s on it is cut off on all sides but one
    boxes = [(at_s, box_of(*track(min(at_s, 2.9)))) for at_s in moments(25, 8)]
    told = watch(boxes)
    assert [severity for _, _, severity, _ in told][-2:] == ["critical", "critical"]
    assert told[-1][1] == "end"
    assert 2.9 < told[-1][0] < 4.5


def test_a_jolt_sideways_is_taken_out() -> None:
    random = np.random.default_rng(2)
    times = moments(25, 6.5)
    sways = 60 * np.sin(2 * np.pi * 3.5 * np.array(times)) + random.normal(0, 4, len(times))
    boxes: list[tuple[float, Box | None]] = []
    for at_s, sway in zip(times, sways, strict=True):
        box = box_of(0, 60 - 10 * at_s)
        boxes.append((at_s, None if box is None else (box[0] + sway, box[1], box[2] + sway, box[3])))
    motions = (np.array([[1.0, 0, way], [0, 1, 0]]) for way in np.diff(sways, prepend=0))
    with_motion = watch(boxes, motions)
    assert [severity for _, _, severity, _ in with_motion] == ["notice", "warning", "critical"]
    assert 2.0 < with_motion[0][0] < 2.6
    assert watch(boxes)[0][0] > 4


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.6, 0.6), st.floats(3, 30), st.floats(5.0, 8.0), st.sampled_from([10.0, 15.0, 30.0]))
def test_the_time_told_is_the_time_left(x: float, speed: float, contact_s: float, fps: float) -> None:
    told = run(steady(x, contact_s * speed, speed), fps=fps, until_s=contact_s)
    assert told
    for at_s, action, _, ttc_s in told:
        if action != "end":
            assert ttc_s is not None
            assert ttc_s == pytest.approx(contact_s - at_s, abs=0.06 + 0.05 * ttc_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"notice_s": 2.0}, {"critical_s": 0.0}, {"notice_s": float("inf")}, {"window_s": 0.0},
        {"hold_s": -1.0}, {"clear_s": -1.0}, {"min_height": 2.0}, {"corridor": -1.0}, {"focus_x": 1.5},
    ],
)  # fmt: skip
def test_it_asks_for_sensible_numbers(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="closing"):
        Closing(**wrong)
