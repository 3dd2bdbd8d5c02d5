from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.vision.letterbox import Mode, plan, rounding_of, to_input, to_source

sizes = st.integers(1, 5000)
input_sizes = st.sampled_from([32, 96, 320, 416, 640])
modes = st.sampled_from(["center", "topleft", "stretch"])


@pytest.mark.parametrize(
    ("source", "target", "mode", "expected"),
    [
        # source wh, input wh, mode -> x, y, w, h of the picture
        ((1280, 720), (416, 416), "topleft", (0, 0, 416, 234)),
        ((1280, 720), (416, 416), "center", (0, 91, 416, 234)),
        ((1280, 720), (416, 416), "stretch", (0, 0, 416, 416)),
        ((1280, 720), (416, 256), "center", (0, 11, 416, 234)),
        ((640, 427), (416, 416), "topleft", (0, 0, 416, 277)),  # 277.55: YOLOX truncates,
        ((640, 427), (416, 416), "center", (0, 69, 416, 278)),  # NanoDet rounds
        ((375, 500), (416, 416), "center", (52, 0, 312, 416)),
        ((640, 3), (416, 416), "topleft", (0, 0, 416, 1)),
        ((640, 3), (416, 416), "center", (0, 207, 416, 2)),
        ((4000, 1), (416, 416), "center", (0, 207, 416, 1)),
        ((1, 1), (416, 416), "center", (0, 0, 416, 416)),
        ((1, 1), (416, 256), "topleft", (0, 0, 256, 256)),
        ((416, 416), (416, 416), "topleft", (0, 0, 416, 416)),
    ],
)
def test_known_placements(
    source: tuple[int, int], target: tuple[int, int], mode: Mode, expected: tuple[int, int, int, int]
) -> None:
    placed = plan(*source, *target, mode)
    assert (placed.x, placed.y, placed.width, placed.height) == expected
    assert (placed.map.width, placed.map.height) == source
    assert (placed.map.pad_x, placed.map.pad_y) == (placed.x, placed.y)


@settings(deadline=None, max_examples=200)
@given(sizes, sizes, input_sizes, input_sizes, modes, st.sampled_from([None, "floor", "round"]))
def test_the_picture_lies_inside_and_boxes_come_back(
    width: int, height: int, input_w: int, input_h: int, mode: Mode, rounding: None
) -> None:
    placed = plan(width, height, input_w, input_h, mode, rounding)
    assert placed.width >= 1
    assert placed.height >= 1
    assert placed.x >= 0
    assert placed.y >= 0
    assert placed.x + placed.width <= input_w
    assert placed.y + placed.height <= input_h
    if mode != "stretch":
        # One side is filled, but for the pixel that floating point may cost the reference too.
        assert placed.width >= input_w - 1 or placed.height >= input_h - 1
    frame = np.array([[0, 0, width, height], [width / 3, height / 4, width / 2, height]], np.float32)
    there = to_input(frame, placed.map)
    corners = [placed.x, placed.y, placed.x + placed.width, placed.y + placed.height]
    # YOLOX's one ratio leaves out the fraction of a pixel that its int() cuts off.
    cut = 1.0 if mode == "topleft" else 0.0
    np.testing.assert_allclose(there[0], corners, atol=cut + 1e-3)
    tolerance = 1e-3 + 1e-4 * max(1 / placed.map.scale_x, 1 / placed.map.scale_y)
    np.testing.assert_allclose(to_source(there, placed.map), frame, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(
    ("source", "target", "crop", "region"),
    [
        ((640, 480), (224, 224), 0.875, (110, 30, 420, 420)),  # resize to 256, crop 224
        ((640, 480), (224, 224), 1.0, (80, 0, 480, 480)),
        ((500, 333), (224, 224), 0.875, (104, 20, 291, 291)),
        ((640, 3), (224, 224), 0.875, (318, 0, 3, 3)),
        ((1, 1), (224, 224), 0.875, (0, 0, 1, 1)),
        ((480, 640), (224, 112), 1.0, (0, 200, 480, 240)),
    ],
)
def test_known_crops(
    source: tuple[int, int], target: tuple[int, int], crop: float, region: tuple[int, int, int, int]
) -> None:
    assert plan(*source, *target, "crop", crop=crop).region == region


@settings(deadline=None, max_examples=200)
@given(sizes, sizes, input_sizes, input_sizes, st.floats(0.001, 1.0))
def test_a_crop_is_the_middle_of_the_frame_and_boxes_come_back(
    width: int, height: int, input_w: int, input_h: int, crop: float
) -> None:
    placed = plan(width, height, input_w, input_h, "crop", crop=crop)
    assert (placed.x, placed.y, placed.width, placed.height) == (0, 0, input_w, input_h)
    assert placed.region is not None
    left, top, wide, high = placed.region
    assert left % 2 == top % 2 == 0
    assert 0 <= left < left + wide <= width
    assert 0 <= top < top + high <= height
    assert abs(left + wide / 2 - width / 2) <= 2
    assert abs(top + high / 2 - height / 2) <= 2
    seen = np.array([[left, top, left + wide, top + high]], np.float32)
    there = to_input(seen, placed.map)
    np.testing.assert_allclose(
        there, [[0, 0, input_w, input_h]], atol=0.01 * max(1, input_w / wide, input_h / high)
    )
    np.testing.assert_allclose(to_source(there, placed.map), seen, rtol=1e-5, atol=1e-3)
    everywhere = to_source(np.array([[-1e9, -1e9, 1e9, 1e9]], np.float32), placed.map)
    assert everywhere.tolist() == [[0, 0, width, height]]


def test_boxes_in_the_padding_are_clipped_to_the_frame() -> None:
    placed = plan(1280, 720, 416, 416, "center")
    boxes = to_source(np.array([[0, 0, 416, 416], [-50, -50, 10, 95]]), placed.map)
    np.testing.assert_allclose(boxes[0], [0, 0, 1280, 720])
    assert boxes[1, 1] == 0
    assert boxes[1, 0] == 0
    assert boxes.dtype == np.float32
    assert to_source(np.zeros((0, 4)), placed.map).shape == (0, 4)


def test_rounding_follows_the_mode() -> None:
    assert rounding_of("topleft") == "floor"
    assert rounding_of("center") == "round"
    assert plan(640, 427, 416, 416, "topleft", "round").height == 278


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="0x5"):
        plan(0, 5, 416, 416, "center")
    with pytest.raises(ValueError, match="none of center"):
        plan(5, 5, 416, 416, "left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="neither floor"):
        plan(5, 5, 416, 416, "center", "up")  # type: ignore[arg-type]
