"""Known boxes, encoded as each family does, come back; whatever is not of the family is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import HEADS, load_head
from pipeline.heads.base import TOP_K, grid_counts, grid_points
from pipeline.messages import Detections, ModelSpec

WIDTH, HEIGHT, CLASSES = 128, 96, 5
BINS = 8
Truth = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]


def spec_of(family: str, **fields: Any) -> ModelSpec:
    labels = tuple("abcde")
    return ModelSpec("model", "", family, labels, WIDTH, HEIGHT, **fields)


def truth_of(n: int, seed: int) -> tuple[Truth, NDArray[np.intp]]:
    """Boxes with scores and classes, and a different place of the 8-16-32 grid for each."""
    rng = np.random.default_rng(seed)
    points, strides = grid_points(WIDTH, HEIGHT, (8, 16, 32), 0.5)
    places = rng.permutation(len(points))[:n]
    # Sides within the bins' reach of the place: at most 6.9 strides.
    sides = rng.uniform(0.3, 6.9, (n, 4)) * strides[places]
    boxes = np.hstack([points[places] - sides[:, :2], points[places] + sides[:, 2:]])
    scores = rng.permutation(n) / max(n, 1) * 0.5 + 0.45
    classes = rng.integers(0, CLASSES, n)
    truth = (boxes.astype(np.float32), scores.astype(np.float32), classes.astype(np.int32))
    return truth, places


def encode_yolox(truth: Truth, places: NDArray[np.intp], dtype: Any = np.float32) -> list[NDArray[Any]]:
    boxes, scores, classes = truth
    points, strides = grid_points(WIDTH, HEIGHT, (8, 16, 32), 0.0)
    raw = np.zeros((1, len(points), 5 + CLASSES))
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    raw[0, places, :2] = (centre - points[places]) / strides[places]
    raw[0, places, 2:4] = np.log(size / strides[places])
    raw[0, places, 4] = 0.98
    raw[0, places, 5 + classes] = scores / 0.98
    return [raw.astype(dtype)]


def encode_nanodet(truth: Truth, places: NDArray[np.intp], dtype: Any = np.float32) -> list[NDArray[Any]]:
    boxes, scores, classes = truth
    points, strides = grid_points(WIDTH, HEIGHT, (8, 16, 32), 0.5)
    probabilities = np.zeros((1, len(points), CLASSES))
    probabilities[0, places, classes] = scores
    logits = np.zeros((1, len(points), 4, BINS))
    sides = np.hstack([points[places] - boxes[:, :2], boxes[:, 2:] - points[places]]) / strides[places]
    # Two neighbouring bins share the weight so that the mean is the side.
    low = np.floor(sides).astype(int)
    weights = np.full((len(places), 4, BINS), 1e-9)
    rows, columns = np.indices(sides.shape)
    weights[rows, columns, low] += 1 - (sides - low)
    weights[rows, columns, low + 1] += sides - low
    logits[0, places] = np.log(weights)
    edges = np.cumsum(grid_counts(WIDTH, HEIGHT, (8, 16, 32)))[:-1]
    halves = probabilities, logits.reshape(1, len(points), 4 * BINS)
    return [part.astype(dtype) for half in halves for part in np.split(half, edges, axis=1)]


def encode_finished(truth: Truth, places: NDArray[np.intp], dtype: Any = np.float32) -> list[NDArray[Any]]:
    boxes, scores, classes = truth
    cells = sum(grid_counts(WIDTH, HEIGHT, (8, 16, 32)))
    all_boxes, all_scores = np.zeros((1, cells, 4)), np.zeros((1, cells, CLASSES))
    all_boxes[0, places] = boxes
    all_scores[0, places, classes] = scores
    return [all_boxes.astype(dtype), all_scores.astype(dtype)]


def encode_fake(truth: Truth, places: NDArray[np.intp], dtype: Any = np.float32) -> list[NDArray[Any]]:
    boxes, scores, classes = truth
    return [np.hstack([boxes, scores[:, None], classes[:, None]])[None].astype(dtype)]


LAYOUTS: dict[str, tuple[ModelSpec, Any]] = {
    "yolox": (spec_of("yolox", output_names=("output",)), encode_yolox),
    "nanodet raw": (spec_of("nanodet"), encode_nanodet),
    "nanodet finished": (spec_of("nanodet", output_names=("boxes", "scores")), encode_finished),
    "fake": (spec_of("fake"), encode_fake),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def by_score(truth: Truth) -> Truth:
    order = np.argsort(-truth[1], kind="stable")
    return truth[0][order], truth[1][order], truth[2][order]


def assert_same(found: Detections, truth: Truth, atol: float = 2e-3) -> None:
    boxes, scores, classes = by_score(truth)
    np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=atol)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6 if atol < 0.1 else 1e-2)
    np.testing.assert_array_equal(found.class_ids, classes)


@layouts
@settings(deadline=None, max_examples=25)
@given(n=st.integers(0, 60), seed=st.integers(0, 1000))
def test_known_boxes_come_back(layout: str, n: int, seed: int) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(n, seed)
    assert_same(load_head(spec.family).decode(encode(truth, places), spec, 0.4), truth)


@layouts
def test_float16_comes_back_coarser(layout: str) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(8, 4)
    found = load_head(spec.family).decode(encode(truth, places, np.float16), spec, 0.4)
    assert found.boxes_xyxy.dtype == np.float32
    assert_same(found, truth, atol=0.6)


@layouts
def test_the_confidence_filters(layout: str) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(50, 9)
    head = load_head(spec.family)
    for confidence in (0.5, 0.7, 0.9, 0.999):
        found = head.decode(encode(truth, places), spec, confidence)
        assert len(found) == int((truth[1] >= confidence).sum())
        assert (found.scores >= confidence - 1e-6).all()


@layouts
def test_nothing_there_is_no_detection(layout: str) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(3, 1)
    outputs = [np.zeros_like(output) for output in encode(truth, places)]
    assert len(load_head(spec.family).decode(outputs, spec, 0.05)) == 0


@layouts
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(layout: str, bad: float) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(3, 1)
    for index in range(len(encode(truth, places))):
        outputs = encode(truth, places)
        # At a place where nothing is: it must be noticed even so.
        outputs[index][0, -1, -1] = bad
        with pytest.raises(ModelError, match="NaN or infinity"):
            load_head(spec.family).decode(outputs, spec, 0.5)


@layouts
def test_wrong_outputs_are_refused(layout: str) -> None:
    spec, encode = LAYOUTS[layout]
    truth, places = truth_of(3, 1)
    good = encode(truth, places)
    head = load_head(spec.family)
    wrong: list[list[NDArray[Any]]] = [
        [],
        [*good, good[0]],
        [output[0] for output in good],  # no batch dimension
        [np.concatenate([output, output]) for output in good],  # two frames
        [output.astype(np.float64) for output in good],
        [output[:, :, :3] for output in good],
        [output * 0 + 7 for output in good],  # no scores
    ]
    if layout != "fake":
        wrong.append([output[:, :-1] for output in good[:1]] + good[1:])
    for outputs in wrong:
        with pytest.raises(ModelError) as caught:
            head.decode(outputs, spec, 0.3)
        assert caught.value.hint


@layouts
def test_no_more_than_the_best_thousand(layout: str) -> None:
    # A large grid, with something everywhere.
    spec = LAYOUTS[layout][0]
    big = ModelSpec("m", "", spec.family, spec.labels, 416, 416, output_names=spec.output_names)
    counts = grid_counts(416, 416, (8, 16, 32))
    cells = sum(counts)
    scores = np.linspace(0.5, 0.9, cells, dtype=np.float32)[None, :, None]
    boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (1, cells, 1))
    outputs: dict[str, list[NDArray[np.float32]]] = {
        "yolox": [np.concatenate([boxes * 0, scores * 0 + 1, scores], axis=2)],
        "nanodet raw": [*np.split(scores, np.cumsum(counts)[:-1], axis=1)]
        + [np.zeros((1, count, 32), np.float32) for count in counts],
        "nanodet finished": [boxes, scores],
        "fake": [np.concatenate([boxes, scores, scores * 0], axis=2)],
    }
    found = load_head(spec.family).decode(outputs[layout], big, 0.1)
    assert len(found) == TOP_K
    np.testing.assert_array_equal(found.scores, np.sort(scores.ravel())[::-1][:TOP_K])


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000))
def test_rows_may_come_in_any_order(seed: int) -> None:
    truth, places = truth_of(20, seed)
    spec = spec_of("fake")
    rows = encode_fake(truth, places)[0]
    order = np.random.default_rng(seed).permutation(20)
    head = load_head("fake")
    assert head.decode([rows], spec, 0.3) == head.decode([rows[:, order]], spec, 0.3)


def test_the_finished_layout_is_read_by_name() -> None:
    truth, places = truth_of(5, 3)
    boxes, scores = encode_finished(truth, places)
    spec = spec_of("nanodet", output_names=("scores", "boxes"))
    assert_same(load_head("nanodet").decode([scores, boxes], spec, 0.4), truth)
    with pytest.raises(ModelError, match="wants boxes and scores"):
        load_head("nanodet").decode([scores, boxes], spec_of("nanodet", output_names=("a", "b")), 0.4)


def test_nanodet_gives_each_class_of_a_place_and_yolox_the_best() -> None:
    truth, places = truth_of(1, 3)
    boxes, scores = encode_finished(truth, places)
    scores[0, places[0]] = [0.9, 0.6, 0, 0, 0]
    spec = LAYOUTS["nanodet finished"][0]
    assert load_head("nanodet").decode([boxes, scores], spec, 0.4).class_ids.tolist() == [0, 1]
    raw = encode_yolox(truth, places)
    raw[0][0, places[0], 5:] = [0.9, 0.6, 0, 0, 0]
    assert load_head("yolox").decode(raw, LAYOUTS["yolox"][0], 0.4).class_ids.tolist() == [0]


def test_yolox_refuses_boxes_that_are_decoded_already() -> None:
    truth, places = truth_of(3, 3)
    raw = encode_yolox(truth, places)
    raw[0][0, places, :4] = [[60, 40, 50, 30]] * 3
    with pytest.raises(ModelError, match="decoded already"):
        load_head("yolox").decode(raw, LAYOUTS["yolox"][0], 0.4)


def test_an_unknown_family_lists_the_known() -> None:
    with pytest.raises(ModelError) as caught:
        load_head("yolo")
    for family in HEADS:
        assert family in caught.value.hint


def test_every_entry_of_the_table_loads() -> None:
    heads = {family: callable(load_head(family).decode) for family in HEADS}
    assert all(heads.values())


def test_grid_points_run_row_by_row_and_are_read_only() -> None:
    points, strides = grid_points(33, 16, (8, 16), 0.5)
    assert points[:5].tolist() == [[4, 4], [12, 4], [20, 4], [28, 4], [36, 4]]
    assert points[10:].tolist() == [[8, 8], [24, 8], [40, 8]]
    assert strides.ravel().tolist() == [8] * 10 + [16] * 3
    with pytest.raises(ValueError, match="read-only"):
        points[0] = 1
