from __future__ import annotations

import tracemalloc
from typing import Any

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


def grid(columns: int, step: float, size: float) -> NDArray[np.float32]:
    """Boxes of one size in rows and columns."""
    corners = np.stack(np.meshgrid(np.arange(columns), np.arange(columns)), axis=-1).reshape(-1, 2) * step
    return np.hstack([corners, corners + size]).astype(np.float32)


def chain(n: int) -> NDArray[np.float32]:
    """Boxes in a row of which each overlaps its neighbours only: every other one stays."""
    left = np.arange(n) * 4.0
    return np.stack([left, np.zeros(n), left + 10, np.full(n, 10.0)], axis=1).astype(np.float32)


def nested(n: int) -> NDArray[np.float32]:
    """Each box within the one before, so that many IoUs are fractions of small integers."""
    size = np.arange(n, 0, -1.0)
    return np.stack([np.zeros(n), np.zeros(n), np.full(n, 10.0), size], axis=1).astype(np.float32)


def flat(n: int) -> NDArray[np.float32]:
    """Boxes without area and inside out among sound ones, all in one place."""
    boxes: NDArray[np.float32] = np.tile(np.array([10, 10, 50, 50], np.float32), (n, 1))
    boxes[::4, 2] = 10
    boxes[1::4, 3] = 5
    boxes[2::8, :2] = 60
    return boxes


HARD = {
    "identical": np.tile(np.array([[3, 3, 9, 9]], np.float32), (300, 1)),
    "apart": grid(17, 20.0, 10.0),
    "touching": grid(17, 10.0, 10.0),
    "half over": grid(17, 5.0, 10.0),
    "chain": chain(300),
    "nested": nested(300),
    "without area": flat(300),
    "large": crowd(300, 1)[0] * np.float32(1e18),
    "small": crowd(300, 2)[0] * np.float32(1e-7),
    "far away": crowd(300, 3)[0] + np.float32(1e6),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["one class", "all different", "some", "across"])
@pytest.mark.parametrize("name", HARD)
def test_hard_sets(name: str, kind: str, dtype: type) -> None:
    boxes: NDArray[Any] = HARD[name].astype(dtype)
    n = len(boxes)
    rng = np.random.default_rng(n)
    scores = (rng.integers(1, 20, n) / 20).astype(np.float32)
    some = rng.choice([0, 1, 79, 70_000], n, p=[0.6, 0.2, 0.1, 0.1])
    known: dict[str, NDArray[np.int32]] = {
        "one class": np.zeros(n, np.int32),
        "all different": np.arange(n, dtype=np.int32),
        "some": some.astype(np.int32),
    }
    ids = known.get(kind)
    for threshold in (0.0, 1 / 3, 0.5, 0.7):
        # 40 boxes take the loop, all of them the blocks.
        for part in (slice(0, 40), slice(None)):
            picked = None if ids is None else ids[part]
            expected = plain_nms(boxes[part], scores[part], picked, threshold, 300)
            assert nms(boxes[part], scores[part], picked, threshold).tolist() == expected


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 128, 129, 200])
@pytest.mark.parametrize("per_class", [True, False])
def test_every_way_at_its_edges(n: int, per_class: bool) -> None:
    boxes, scores, ids = crowd(n, n, classes=2)
    classes = ids if per_class else None
    assert nms(boxes, scores, classes, 0.45).tolist() == plain_nms(boxes, scores, classes, 0.45, 300)


def test_float32_does_not_decide_what_float64_would_decide_otherwise() -> None:
    # Thresholds that are the IoU of a pair, and its neighbours: rounding in float32 takes either side.
    boxes, scores, _ = crowd(150, 11)
    overlaps = iou_matrix(boxes, boxes)
    for value in overlaps[(overlaps > 0.3) & (overlaps < 0.9)][::40]:
        for threshold in (np.nextafter(value, 0), value, np.nextafter(value, 1)):
            kept = nms(boxes, scores, None, float(threshold))
            assert kept.tolist() == plain_nms(boxes, scores, None, float(threshold), 300)


def test_dense_candidates_of_several_labels_each() -> None:
    """What a low confidence leaves of 8,400 cells with 80 scores: the same box again for other classes."""
    rng = np.random.default_rng(4)
    cells, _, _ = crowd(8400, 9, spread=600)
    hot = rng.choice(8400, 500, replace=False)
    labels = rng.integers(0, 80, (500, 2)).astype(np.int32)
    places = np.repeat(hot, 2)
    scores = (rng.integers(5, 100, 1000) / 100).astype(np.float32)
    several: list[NDArray[np.int32] | None] = [labels.ravel(), np.full(1000, 7, np.int32), None]
    for classes in several:
        kept = nms(cells[places], scores, classes, 0.6)
        assert kept.tolist() == plain_nms(cells[places], scores, classes, 0.6, 300)


def test_twenty_thousand_boxes_need_no_matrix_of_them_all() -> None:
    boxes, scores, _ = crowd(20_000, 5, spread=1500)
    tracemalloc.start()
    kept = nms(boxes, scores, None, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # 20,000 x 20,000 float32 are 1,600 MB
    assert kept.tolist() == plain_nms(boxes, scores, None, 0.5, 300)


def test_empty_and_wrong_input() -> None:
    none = np.zeros((0, 4), np.float32)
    assert nms(none, np.zeros(0), None, 0.5).tolist() == []
    with pytest.raises(ValueError, match="do not match"):
        nms(none, np.zeros(1), None, 0.5)
    with pytest.raises(ValueError, match="do not match"):
        nms(np.zeros((2, 4)), np.zeros(2), np.zeros(1, np.int32), 0.5)
    for n in (1, 200):
        scores = np.ones(n)
        scores[n // 2] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            nms(np.zeros((n, 4)), scores, None, 0.5)
