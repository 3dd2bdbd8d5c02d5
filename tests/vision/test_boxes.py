from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.vision import boxes as module
from pipeline.vision.boxes import (
    area,
    clip_xyxy,
    cxcywh_to_xyxy,
    iou_matrix,
    normalize_xyxy,
    xywh_to_xyxy,
    xyxy_to_cxcywh,
    xyxy_to_xywh,
)

coordinate = st.floats(0, 4000, width=32)
size = st.floats(0.125, 2000, width=32)
boxes_strategy = st.lists(st.tuples(coordinate, coordinate, size, size), min_size=1, max_size=12).map(
    lambda rows: xywh_to_xyxy(np.array(rows, np.float32))
)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # touching edges share no pixel
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
        ((5, 5, 5, 5), (5, 5, 5, 5), 0.0),  # no area
        ((10, 10, 0, 0), (0, 0, 10, 10), 0.0),  # inverted
    ],
)
def test_iou_of_known_pairs(a: tuple[int, ...], b: tuple[int, ...], expected: float) -> None:
    assert iou_matrix(np.array([a]), np.array([b]))[0, 0] == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(boxes_strategy, boxes_strategy)
def test_iou_is_symmetric_bounded_and_one_with_itself(a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    matrix = iou_matrix(a, b)
    assert matrix.shape == (len(a), len(b))
    assert ((matrix >= 0) & (matrix <= 1)).all()
    np.testing.assert_allclose(matrix, iou_matrix(b, a).T, rtol=1e-12)
    solid = area(a) > 0
    assert (np.diag(iou_matrix(a, a))[solid] == 1).all()


@settings(deadline=None, max_examples=60)
@given(boxes_strategy)
def test_conversions_round_trip(boxes: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes, atol=2e-3)
    np.testing.assert_allclose(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes, atol=2e-3)


def test_conversions_of_a_known_box() -> None:
    box = np.array([[10, 20, 30, 60]])
    assert xyxy_to_cxcywh(box).tolist() == [[20, 40, 20, 40]]
    assert xyxy_to_xywh(box).tolist() == [[10, 20, 20, 40]]
    np.testing.assert_allclose(normalize_xyxy(box, 100, 200), [[0.1, 0.1, 0.3, 0.3]], rtol=1e-6)


def test_clip_keeps_what_is_inside_and_cuts_the_rest() -> None:
    boxes = np.array([[-5, -5, 5, 5], [1, 2, 3, 4], [90, 40, 200, 300], [200, 200, 300, 300]])
    expected = [[0, 0, 5, 5], [1, 2, 3, 4], [90, 40, 100, 50], [100, 50, 100, 50]]
    clipped = clip_xyxy(boxes, 100, 50)
    assert clipped.tolist() == expected
    assert clipped.dtype == np.float32


def test_empty_boxes_pass_everywhere() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert iou_matrix(empty, empty).shape == (0, 0)
    assert iou_matrix(np.ones((3, 4)), empty).shape == (3, 0)
    for convert in (xyxy_to_cxcywh, cxcywh_to_xyxy, xyxy_to_xywh, xywh_to_xyxy):
        assert convert(empty).shape == (0, 4)
    assert clip_xyxy(empty, 1, 1).shape == (0, 4)
    assert area(empty).shape == (0,)


def test_normalising_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0x5"):
        normalize_xyxy(np.zeros((1, 4)), 0, 5)


def test_exports() -> None:
    assert all(hasattr(module, name) for name in module.__all__)
