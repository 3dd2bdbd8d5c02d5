from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.vision.motion import MotionGate

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "assets" / "videos"
SECOND = 1_000_000_000
FPS = 10

Gray = NDArray[np.uint8]
Scene = Callable[[float], NDArray[np.float64]]


def textured(width: int = 320, height: int = 240) -> NDArray[np.float64]:
    """A scene with soft and hard edges, 40..200."""
    rng = np.random.default_rng(5)
    coarse = cv2.resize(rng.uniform(40, 200, (12, 16)), (width, height), interpolation=cv2.INTER_CUBIC)
    coarse[height // 2 :, : width // 3] = 90
    return np.clip(coarse, 40, 200)


BASE = textured()


def shown(scene: Scene, seconds: float = 20.0, noise: float = 4.0) -> Iterator[tuple[Gray, int]]:
    """Pictures of a scene at ten a second, with the noise of a sensor, and their times."""
    rng = np.random.default_rng(1)
    grain = [rng.normal(0, noise, BASE.shape) for _ in range(9)]  # used again: making it takes the time
    for number in range(int(seconds * FPS)):
        pixels = np.clip(scene(number / FPS) + grain[number % 9], 0, 255).astype(np.uint8)
        yield pixels, number * SECOND // FPS


def moving_at(gate: MotionGate, pictures: Iterator[tuple[Gray, int]]) -> list[float]:
    """Seconds at which the gate is open."""
    return [pts_ns / SECOND for plane, pts_ns in pictures if gate.open(plane, pts_ns)]


def with_block(
    t: float, *, x: float, size: tuple[int, int] = (14, 35), delta: float = -50.0
) -> NDArray[np.float64]:
    scene = BASE.copy()
    left = int(x)
    scene[125 : 125 + size[1], left : left + size[0]] += delta
    return scene


@pytest.mark.parametrize("noise", [0.0, 4.0, 12.0, 25.0])
def test_noise_is_no_motion(noise: float) -> None:
    assert moving_at(MotionGate(hold_s=0.0), shown(lambda _: BASE, noise=noise)) == [0.0]


@pytest.mark.parametrize(
    "light",
    [
        pytest.param(lambda t: BASE + (35 if t >= 5 else 0), id="brighter at once"),
        pytest.param(lambda t: BASE * (0.6 if t >= 5 else 1.0), id="darker at once"),
        pytest.param(lambda t: BASE * (1 - 0.5 * min(1.0, max(0.0, t - 5) / 2)), id="exposure settles"),
        pytest.param(lambda t: 128 + (BASE - 128) * (0.6 if t >= 5 else 1.0), id="fog"),
        pytest.param(lambda t: BASE + 10 * np.sin(17 * t), id="lamps flicker"),
        pytest.param(lambda t: BASE * (1 - 0.04 * t), id="dusk"),
    ],
)
def test_light_is_no_motion(light: Scene) -> None:
    assert moving_at(MotionGate(hold_s=0.0), shown(light)) == [0.0]


def test_another_scene_is_motion_once() -> None:
    infrared = 200 - 0.6 * BASE[:, ::-1]
    scene = shown(lambda t: infrared if t >= 5 else BASE)
    assert moving_at(MotionGate(hold_s=0.0), scene) == [0.0, 5.0]


def test_half_of_another_scene_is_motion_for_a_short_while() -> None:
    other = BASE.copy()
    other[:, 240:] = 255 - other[:, 240:]
    seen = moving_at(MotionGate(hold_s=0.0), shown(lambda t: other if t >= 5 else BASE))
    assert 5.0 in seen
    assert max(seen) < 15


@pytest.mark.parametrize("delta", [-50.0, 40.0, 60.0])
def test_something_small_that_moves_is_seen_all_the_time(delta: float) -> None:
    walk = shown(lambda t: with_block(t, x=20 + 15 * (t - 5), delta=delta) if 5 <= t < 15 else BASE)
    seen = moving_at(MotionGate(hold_s=0.0), walk)
    assert set(np.arange(5, 15, 0.1).round(1).tolist()) <= set(seen)
    assert max(seen) < 18, "what it leaves behind is forgotten"
    assert [time for time in seen if time < 5] == [0.0]


def test_the_light_changes_while_something_moves() -> None:
    walk = shown(
        lambda t: (with_block(t, x=20 + 15 * (t - 5)) if 5 <= t < 15 else BASE) * (0.7 if t >= 8 else 1.0)
    )
    seen = moving_at(MotionGate(hold_s=0.0), walk)
    assert set(np.arange(5, 15, 0.1).round(1).tolist()) <= set(seen)
    assert max(seen) < 18


def test_who_stands_still_becomes_background_after_a_while() -> None:
    gate = MotionGate(hold_s=0.0)
    seen = moving_at(gate, shown(lambda t: with_block(t, x=100) if t >= 5 else BASE, seconds=90))
    assert {6.0, 10.0, 15.0, 20.0} <= set(seen)
    assert max(seen) < 60


def test_smaller_than_min_area_is_no_motion() -> None:
    def scene(t: float) -> NDArray[np.float64]:
        return with_block(t, x=20 + 13 * t, size=(8, 15)) if t >= 1 else BASE

    size = 8 * 15 / BASE.size
    assert moving_at(MotionGate(hold_s=0.0, min_area=size * 4), shown(scene)) == [0.0]
    assert len(moving_at(MotionGate(hold_s=0.0, min_area=size / 2), shown(scene))) > 150


def test_it_stays_open_for_a_while() -> None:
    gate = MotionGate(hold_s=2.0)
    # A flash in one picture.
    pictures = shown(lambda t: with_block(t, x=100, delta=50) if t == 10 else BASE)
    assert moving_at(gate, pictures) == [*np.arange(0, 2, 0.1).round(1), *np.arange(10, 12, 0.1).round(1)]


@pytest.mark.parametrize("step_s", [-1.0, 61.0])
def test_a_gap_is_a_new_beginning(step_s: float) -> None:
    gate = MotionGate(hold_s=0.0)
    plane = BASE.astype(np.uint8)
    start = 100 * SECOND
    assert gate.open(plane, start)
    assert not gate.open(plane, start + SECOND)
    assert gate.open(plane, start + int(step_s * SECOND))


def test_reset_and_another_size_are_new_beginnings() -> None:
    gate = MotionGate(hold_s=0.0)
    plane = BASE.astype(np.uint8)
    assert [gate.open(plane, 0), gate.open(plane, SECOND)] == [True, False]
    gate.reset()
    assert [gate.open(plane, 2 * SECOND), gate.open(plane, 3 * SECOND)] == [True, False]
    assert [gate.open(plane[:120], 4 * SECOND), gate.open(plane[:120], 5 * SECOND)] == [True, False]


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 3), (90, 160), (5, 2000), (2000, 5), (239, 241), (1080, 1920), (1921, 1079)]
)
@pytest.mark.parametrize("colour", [False, True], ids=["luma", "bgr"])
def test_any_size(shape: tuple[int, int], colour: bool) -> None:
    plane = np.random.default_rng(0).integers(20, 120, (*shape, 3) if colour else shape, dtype=np.uint8)
    gate = MotionGate(hold_s=0.0, min_area=0.02)
    assert [gate.open(plane, number * SECOND) for number in range(3)] == [True, False, False]
    changed = plane.copy()
    changed[: shape[0] // 2 + 1, : shape[1] // 3 + 1] += 100
    gate.open(changed, 3 * SECOND)
    if min(shape) > 5:
        assert 0.05 < gate.area < 0.3


def test_it_reads_strided_and_turned_views_and_leaves_them_alone() -> None:
    buffer = np.random.default_rng(0).integers(0, 255, (480, 704), dtype=np.uint8)
    for view in (buffer[:, :640], np.rot90(buffer[:, :640]), np.rot90(buffer[:, :640], 2)):
        view.flags.writeable = False
        before = view.copy()
        plain, strided = MotionGate(hold_s=0.0), MotionGate(hold_s=0.0)
        for number in range(3):
            pts_ns = number * SECOND
            assert plain.open(np.ascontiguousarray(view), pts_ns) == strided.open(view, pts_ns)
        assert np.array_equal(view, before)


def clip(name: str, limit: int) -> list[tuple[Gray, int]]:
    """Brightness and times of the first pictures of a real video."""
    if not (VIDEOS / name).is_file():
        pytest.skip(f"{name} is not here")
    video = cv2.VideoCapture(str(VIDEOS / name))
    rate = video.get(cv2.CAP_PROP_FPS)
    found: list[tuple[Gray, int]] = []
    while len(found) < limit and (frame := video.read()[1]) is not None:
        gray = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.uint8)
        found.append((gray, int(len(found) / rate * SECOND)))
    video.release()
    return found


def test_people_who_walk_keep_it_open() -> None:
    pictures = clip("vtest.avi", 200)
    assert len(moving_at(MotionGate(hold_s=0.0), iter(pictures))) == len(pictures)


def test_the_same_street_frozen_keeps_it_shut() -> None:
    plane = clip("vtest.avi", 1)[0][0].astype(np.int16)
    rng = np.random.default_rng(1)
    grain = [rng.normal(0, 6, plane.shape).astype(np.int16) for _ in range(9)]
    frozen = (
        (np.clip(plane + grain[number % 9], 0, 255).astype(np.uint8), number * SECOND // FPS)
        for number in range(100)
    )
    assert moving_at(MotionGate(hold_s=0.0), frozen) == [0.0]


@pytest.mark.parametrize(
    ("name", "still", "busy"),
    [
        # Pictures 5 to 50: an empty road. 60 to 120 and 180 to 300: cars.
        ("car-detection.mp4", range(5, 50), [*range(60, 120), *range(180, 300)]),
        # Bottles that stand there, then a hand that takes one away.
        ("bottle-detection.mp4", [*range(10, 40), *range(80, 140)], range(200, 300)),
    ],
)
def test_a_real_camera_on_a_scene_that_rests_in_between(
    name: str, still: Sequence[int], busy: Sequence[int]
) -> None:
    gate = MotionGate(hold_s=0.0)
    opened = [gate.open(plane, pts_ns) for plane, pts_ns in clip(name, 301)]
    assert not any(opened[number] for number in still)
    assert all(opened[number] for number in busy)
