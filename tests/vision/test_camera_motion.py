"""Shifts, turns and zooms of known pictures are found again, whatever else moves in them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.vision.camera_motion import CameraMotion, rigid

NOTHING = np.zeros((0, 4))


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Something to look at, (height, width, 3): spots of all sizes."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size in (5, 11, 25, 61):
        rough = random.normal(0, 1, (height // size + 2, width // size + 2, 3)).astype(np.float32)
        picture += cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(128 + 30 * picture, 0, 255), np.uint8)


def similarity(
    dx: float, dy: float, turn_deg: float, scale: float, width: int, height: int
) -> NDArray[np.float64]:
    """Shift after a turn and a zoom around the middle, (2, 3)."""
    turn = math.radians(turn_deg)
    linear = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    middle = np.array([width / 2, height / 2])
    return np.column_stack([linear, middle - linear @ middle + (dx, dy)])


def moved(picture: NDArray[np.uint8], motion: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture after a motion; 0 is the edge of the first pixel, for OpenCV its middle."""
    at_middles = motion.copy()
    at_middles[:, 2] += motion[:, :2] @ (0.5, 0.5) - 0.5
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, at_middles, size, borderMode=cv2.BORDER_REFLECT), np.uint8)


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def furthest(found: NDArray[np.float64] | None, true: NDArray[np.float64], width: int, height: int) -> float:
    """How far a corner of the picture comes out from where it should, in pixels."""
    assert found is not None
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    return float(np.hypot(*((found - true) @ corners.T)).max())


def estimate(
    first: NDArray[np.uint8], second: NDArray[np.uint8], boxes: NDArray[np.float64] = NOTHING
) -> tuple[NDArray[np.float64] | None, CameraMotion]:
    camera = CameraMotion()
    assert camera.estimate((first,), "bgr24", boxes) is None  # nothing to compare with yet
    return camera.estimate((second,), "bgr24", boxes), camera


@pytest.mark.parametrize("size", [(1280, 720), (960, 540), (320, 240), (360, 640)])
@pytest.mark.parametrize(
    ("dx", "dy", "turn", "scale"),
    [(0, 0, 0, 1), (12, -7, 0, 1), (0.5, 0.5, 0, 1), (0, 0, 3, 1), (0, 0, 0, 1.05), (-9, 4, -2, 0.97)],
)
def test_a_known_motion_is_found(
    size: tuple[int, int], dx: float, dy: float, turn: float, scale: float
) -> None:
    true = similarity(dx, dy, turn, scale, *size)
    first = scene(*size)
    found, camera = estimate(first, moved(first, true))
    assert furthest(found, true, *size) < 0.0012 * max(size)
    assert camera.quality > 0.8
    assert camera.flow is not None
    if turn == 0 and scale == 1:
        assert camera.flow * math.hypot(*size) == pytest.approx(math.hypot(dx, dy), abs=0.3)


@settings(max_examples=15, deadline=None)
@given(st.floats(-60, 60), st.floats(-40, 40), st.floats(-6, 6), st.floats(0.93, 1.08), st.integers(0, 9))
def test_any_motion_of_a_hand_is_found(dx: float, dy: float, turn: float, scale: float, seed: int) -> None:
    true = similarity(dx, dy, turn, scale, 640, 360)
    first = scene(640, 360, seed)
    found, _ = estimate(first, moved(first, true))
    assert furthest(found, true, 640, 360) < 1.5


def test_planes_of_i420_give_the_same_and_need_not_be_contiguous_or_writable() -> None:
    first = scene(640, 360)
    true = similarity(8, 3, 1, 1, 640, 360)
    camera = CameraMotion()
    chroma = np.zeros((180, 320), np.uint8)
    for picture in (first, moved(first, true)):
        padded = np.zeros((360, 704), np.uint8)
        padded[:, :640] = grey(picture)
        luma = padded[:, :640]
        luma.flags.writeable = False
        found = camera.estimate((luma, chroma, chroma), "i420", NOTHING)
        padded[:] = 0  # the slot of the frame belongs to another one now
    assert furthest(found, true, 640, 360) < 0.8


def test_pictures_of_a_phone_on_its_side() -> None:
    first = scene(640, 360)
    true = similarity(8, 3, 1, 1, 640, 360)
    camera = CameraMotion()
    assert camera.estimate((first.transpose(1, 0, 2),), "bgr24", NOTHING) is None
    found = camera.estimate((moved(first, true).transpose(1, 0, 2),), "bgr24", NOTHING)
    mirror = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    turned = (mirror @ np.vstack([true, [0, 0, 1]]) @ mirror)[:2]
    assert furthest(found, turned, 360, 640) < 0.8


@pytest.mark.parametrize("masked", [False, True])
def test_what_moves_by_itself_does_not_pull(masked: bool) -> None:
    first = scene(640, 360)
    true = similarity(-6, 2, 0, 1, 640, 360)
    second = moved(first, true)
    # a lorry over a quarter of the picture, or with a box around it over two thirds
    x2 = 640 if masked else 400
    lorry = scene(x2 - 80, 260, seed=5)
    first[60:320, 80:x2], second[40:300, 80 : x2 - 30] = lorry, lorry[:, 30:]
    boxes = np.array([[80.0, 35, x2, 325]]) if masked else NOTHING
    found, _ = estimate(first, second, boxes)
    assert furthest(found, true, 640, 360) < 1.0


def test_a_clock_in_the_picture_does_not_hold_it() -> None:
    first = scene(640, 360)
    true = similarity(-6, 9, 0, 1, 640, 360)
    second = moved(first, true)
    for picture in (first, second):
        cv2.rectangle(picture, (0, 330), (640, 360), (0, 0, 0), -1)
        cv2.putText(picture, "2026-11-23 09:08:55  047 KM/H", (10, 352), 0, 0.8, (255, 255, 255), 2)
    found, camera = estimate(first, second)
    assert furthest(found, true, 640, 360) < 1.0
    assert camera.quality < 1


def test_a_lorry_that_hides_all_but_a_corner_is_not_the_road() -> None:
    first = scene(640, 360)
    first[:], second = 90, np.full_like(first, 90)
    sign = scene(200, 110)
    first[10:120, 10:210], second[14:124, 16:216] = sign, sign
    assert estimate(first, second)[0] is None


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_pictures_tell_nothing(level: int) -> None:
    blank = np.full((360, 640, 3), level, np.uint8)
    found, camera = estimate(blank, blank)
    assert found is None
    assert camera.quality == 0
    assert camera.flow is None
    assert camera.estimate((scene(640, 360),), "bgr24", NOTHING) is None


def test_boxes_over_all_of_it_tell_nothing() -> None:
    first = scene(640, 360)
    assert estimate(first, first, np.array([[0.0, 0, 640, 360]]))[0] is None
    assert estimate(first, first, np.array([[-50.0, -50, 9000, 9000]]))[0] is None
    assert estimate(first, first, np.array([[-50.0, -50, -10, -10]]))[0] is not None


def test_a_cut_is_no_motion() -> None:
    for seed in range(1, 6):
        assert estimate(scene(640, 360), scene(640, 360, seed))[0] is None


@pytest.mark.parametrize(("dx", "turn", "scale"), [(290, 0, 1), (0, 35, 1), (0, 0, 1.5)])
def test_what_no_camera_does_is_refused(dx: float, turn: float, scale: float) -> None:
    true = similarity(dx, 0, turn, scale, 640, 360)
    large = scene(640, 360)
    found, _ = estimate(large, moved(large, true))
    assert found is None


def test_another_size_or_a_reset_begins_anew() -> None:
    camera, first = CameraMotion(), scene(640, 360)
    assert camera.estimate((first,), "bgr24", NOTHING) is None
    assert camera.estimate((first,), "bgr24", NOTHING) is not None
    assert camera.estimate((scene(1280, 720),), "bgr24", NOTHING) is None
    assert camera.estimate((first,), "bgr24", NOTHING) is None
    assert camera.estimate((first,), "bgr24", NOTHING) is not None
    camera.reset()
    assert camera.quality == 0
    assert camera.estimate((first,), "bgr24", NOTHING) is None


def test_noise_of_the_night_moves_nothing() -> None:
    random, picture = np.random.default_rng(3), scene(640, 360)
    first, second = (
        np.asarray(np.clip(picture * 0.5 + random.normal(0, 10, picture.shape), 0, 255), np.uint8)
        for _ in range(2)
    )
    found, _ = estimate(first, second)
    assert furthest(found, np.eye(2, 3), 640, 360) < 0.7


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(-20, 20), st.floats(0.8, 1.25))
def test_rigid_leaves_shift_and_turn(dx: float, dy: float, turn: float, scale: float) -> None:
    whole = similarity(dx, dy, turn, scale, 640, 360)
    found = rigid(whole, 640, 360)
    np.testing.assert_allclose(found, similarity(dx, dy, turn, 1, 640, 360), atol=1e-9)
    np.testing.assert_allclose(rigid(found, 640, 360), found, atol=1e-9)
