from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.vision.boxes import iou_matrix
from pipeline.vision.nms import nms


def plain_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int32] | None,
    threshold: float,
    limit: int,
) -> list[int]:
    """The definition, one box at a time."""
    rest = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    kept: list[int] = []
    while rest and len(kept) < limit:
        best = rest.pop(0)
        kept.append(best)
        overlap = iou_matrix(boxes[best : best + 1], boxes)[0]
        rest = [
            index
            for index in rest
            if overlap[index] <= threshold or (classes is not None and classes[index] != classes[best])
        ]
    return kept


def crowd(
    n: int, seed: int, classes: int = 3, spread: float = 300.0
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, spread, (n, 2))
    boxes = np.hstack([corner, corner + rng.uniform(5, 120, (n, 2))]).astype(np.float32)
    # Few distinct scores, so that ties abound.
    scores = (rng.integers(1, 50, n) / 50).astype(np.float32)
    return boxes, scores, rng.integers(0, classes, n).astype(np.int32)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 120), st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.booleans())
def test_equals_the_plain_loop(n: int, seed: int, threshold: float, per_class: bool) -> None:
    boxes, scores, ids = crowd(n, seed)
    classes = ids if per_class else None
    kept = nms(boxes, scores, classes, threshold)
    assert kept.dtype == np.intp
    assert kept.tolist() == plain_nms(boxes, scores, classes, threshold, 300)


@pytest.mark.parametrize("limit", [0, 1, 31, 32, 33, 100])
def test_max_detections_cuts_the_same_list(limit: int) -> None:
    boxes, scores, ids = crowd(200, 7, spread=2000)
    assert nms(boxes, scores, ids, 0.5, limit).tolist() == plain_nms(boxes, scores, ids, 0.5, limit)


@pytest.mark.parametrize("n", [2, 33, 100])
def test_identical_boxes_leave_the_first(n: int) -> None:
    boxes = np.tile(np.array([[10, 10, 50, 60]], np.float32), (n, 1))
    scores = np.full(n, 0.5, np.float32)
    assert nms(boxes, scores, None, 0.5).tolist() == [0]
    ids = np.arange(n, dtype=np.int32) % 2
    assert nms(boxes, scores, ids, 0.5).tolist() == [0, 1]


def test_an_overlap_of_exactly_the_threshold_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, None, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, None, 0.499).tolist() == [0]


def test_a_suppressed_box_suppresses_nobody() -> None:
    # a overlaps b, b overlaps c, a and c are apart: c stays, because b has gone.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [9, 0, 19, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms(boxes, scores, None, 0.3).tolist() == [0, 2]


def test_the_order_of_the_input_does_not_matter() -> None:
    boxes, _, ids = crowd(150, 3)
    scores = np.random.default_rng(1).permutation(150).astype(np.float32) / 150
    order = np.random.default_rng(2).permutation(150)
    kept = nms(boxes, scores, ids, 0.4)
    shuffled = nms(boxes[order], scores[order], ids[order], 0.4)
    assert order[shuffled].tolist() == kept.tolist()


def test_three_thousand_boxes_take_no_quadratic_time() -> None:
    boxes, scores, ids = crowd(3000, 5, classes=80, spread=1500)
    started = time.perf_counter()
    kept = nms(boxes, scores, ids, 0.5)
    # Measured 10 ms; a matrix over all of them takes well over a second where FACTS were taken.
    assert time.perf_counter() - started < 1.0
    assert kept.tolist() == plain_nms(boxes, scores, ids, 0.5, 300)


def test_empty_and_wrong_input() -> None:
    none = np.zeros((0, 4), np.float32)
    assert nms(none, np.zeros(0), None, 0.5).tolist() == []
    with pytest.raises(ValueError, match="do not match"):
        nms(none, np.zeros(1), None, 0.5)
    with pytest.raises(ValueError, match="do not match"):
        nms(np.zeros((2, 4)), np.zeros(2), np.zeros(1, np.int32), 0.5)
    with pytest.raises(ValueError, match="NaN"):
        nms(np.zeros((1, 4)), np.array([np.nan]), None, 0.5)
