"""Known boxes, written as each YOLO layout writes them, come back; what is not of the layout is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import load_head
from pipeline.heads.base import TOP_K, grid_counts
from pipeline.messages import Detections, ModelSpec

WIDTH, HEIGHT, CLASSES = 128, 96, 5
CELLS = sum(grid_counts(WIDTH, HEIGHT, (8, 16, 32)))
Array = NDArray[Any]
ANCHORS = {
    32: [[116, 90], [156, 198], [373, 326]],
    16: [[30, 61], [62, 45], [59, 119]],
    8: [[10, 13], [16, 30], [33, 23]],
}


@dataclass
class Truth:
    """Boxes in pixels of the input, by descending score, and a place in a table of `CELLS` for each."""

    boxes: Array
    scores: Array
    classes: Array
    places: Array

    @property
    def cxcywh(self) -> Array:
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        return np.hstack([(low + high) / 2, high - low])


def truth_of(n: int, seed: int) -> Truth:
    rng = np.random.default_rng(seed)
    centres = rng.uniform((0, 0), (WIDTH, HEIGHT), (n, 2))
    half = rng.uniform(2, 60, (n, 2))
    scores = np.sort(rng.permutation(n) / max(n, 1) * 0.5 + 0.45)[::-1]
    boxes = np.hstack([centres - half, centres + half]).astype(np.float32)
    return Truth(boxes, scores, rng.integers(0, CLASSES, n), rng.permutation(CELLS)[:n])


def spec_of(family: str, **fields: Any) -> ModelSpec:
    return ModelSpec("model", "", family, tuple("abcde"), WIDTH, HEIGHT, **fields)


def table5(truth: Truth, scale: Any = 1.0) -> list[Array]:
    table = np.zeros((1, CELLS, 5 + CLASSES), np.float32)
    table[0, truth.places, :4] = truth.cxcywh / scale
    table[0, truth.places, 4] = 0.98
    table[0, truth.places, 5 + truth.classes] = truth.scores / 0.98
    return [table]


def table8(truth: Truth, scale: Any = 1.0, extra: int = 0) -> list[Array]:
    table = np.zeros((1, 4 + CLASSES + extra, CELLS), np.float32)
    table[0, :4, truth.places] = truth.cxcywh / scale
    table[0, 4 + truth.classes, truth.places] = truth.scores
    table[0, 4 + CLASSES :] = 40.0
    return [table]


def rows(truth: Truth, order: str, size: int = 80, scale: Any = 1.0) -> list[Array]:
    """Finished rows with columns ``b`` batch, ``4`` box, ``s`` score, ``c`` class, padded with zeros."""
    n = len(truth.scores)
    part = {
        "b": np.zeros((n, 1)),
        "4": truth.boxes / scale,
        "s": truth.scores[:, None],
        "c": truth.classes[:, None],
    }
    found = np.hstack([part[one] for one in order])
    padded = np.zeros((1, size, found.shape[1]), np.float32)
    padded[0, :n] = found
    return [padded]


def zoo(truth: Truth) -> list[Array]:
    boxes, scores = np.zeros((1, CELLS, 4), np.float32), np.zeros((1, CLASSES, CELLS), np.float32)
    boxes[0, truth.places] = truth.boxes[:, [1, 0, 3, 2]]
    scores[0, truth.classes, truth.places] = truth.scores
    return [boxes, scores]


def nas(truth: Truth) -> list[Array]:
    boxes, scores = zoo(truth)
    return [boxes[..., [1, 0, 3, 2]], np.ascontiguousarray(scores.transpose(0, 2, 1))]


def nas_batch(truth: Truth) -> list[Array]:
    n = len(truth.scores)
    boxes, scores = np.full((1, 80, 4), -1, np.float32), np.full((1, 80), -1, np.float32)
    ids = np.full((1, 80), -1, np.int64)
    boxes[0, :n], scores[0, :n], ids[0, :n] = truth.boxes, truth.scores, truth.classes
    return [np.array([[n]]), boxes, scores, ids]


def logit(p: Any) -> Any:
    return np.log(p / (1 - p))


def grids(truth: Truth, kind: str) -> list[Array]:
    """Undecoded: each box at the cell of its centre, at a stride and anchor of its own."""
    outputs = []
    for level, stride in enumerate((32, 16, 8)):
        high, wide = HEIGHT // stride, WIDTH // stride
        grid = np.full((high, wide, 3, 5 + CLASSES), -20.0)
        for index in range(len(truth.scores)):
            if truth.places[index] // 3 % 3 != level:
                continue
            anchor = truth.places[index] % 3
            x, y, w, h = truth.cxcywh[index]
            column, row = int(x // stride), int(y // stride)
            cell = grid[row, column, anchor]
            cell[:2] = logit(np.clip([x / stride - column, y / stride - row], 1e-4, 1 - 1e-4))
            cell[2:4] = np.log(np.array([w, h]) / ANCHORS[stride][anchor])
            cell[4] = logit(0.98)
            cell[5 + truth.classes[index]] = logit(truth.scores[index] / 0.98)
        axes = {"chw": (2, 3, 0, 1), "hwc": (0, 1, 2, 3), "ahwc": (2, 0, 1, 3), "hwac": (0, 1, 2, 3)}[kind]
        placed: Array = grid.transpose(axes).astype(np.float32)
        if kind == "chw":
            placed = placed.reshape(-1, high, wide)
        if kind == "hwc":
            placed = placed.reshape(high, wide, -1)
        outputs.append(np.ascontiguousarray(placed[None]))
    return outputs


SHARES = (WIDTH, HEIGHT, WIDTH, HEIGHT)
NORMAL = {"normalized": True}
Encode = Callable[[Truth], list[Array]]
LAYOUTS: dict[str, tuple[ModelSpec, Encode]] = {
    "v5": (spec_of("yolov5"), table5),
    "v5 in shares": (spec_of("yolov5", options=NORMAL), lambda truth: table5(truth, SHARES)),
    "v7 end to end": (spec_of("yolov5", max_rows=80), lambda truth: rows(truth, "b4cs")),
    "v8": (spec_of("yolov8"), table8),
    "v8 in shares": (spec_of("yolov8", options=NORMAL), lambda truth: table8(truth, SHARES)),
    "v8 with masks": (spec_of("yolov8", options={"classes": CLASSES}), lambda truth: table8(truth, 1.0, 32)),
    "v8 transposed": (
        spec_of("yolov8", options={"transposed": True}),
        lambda truth: [table8(truth)[0].transpose(0, 2, 1)],
    ),
    "v10": (spec_of("yolov10"), lambda truth: rows(truth, "4sc")),
    "v10 in shares": (spec_of("yolov10", options=NORMAL), lambda truth: rows(truth, "4sc", scale=SHARES)),
    "v3 of the zoo": (spec_of("yolov3"), zoo),
    "v3 chw": (spec_of("yolov3"), lambda truth: grids(truth, "chw")),
    "v3 hwc": (spec_of("yolov3"), lambda truth: grids(truth, "hwc")),
    "v3 ahwc": (spec_of("yolov3"), lambda truth: grids(truth, "ahwc")),
    "v3 hwac": (spec_of("yolov3"), lambda truth: grids(truth, "hwac")),
    "nas": (spec_of("yolonas"), nas),
    "nas flat": (spec_of("yolonas", max_rows=80), lambda truth: rows(truth, "b4sc")),
    "nas batch": (spec_of("yolonas"), nas_batch),
}
ROWS = ("v7 end to end", "v10", "v10 in shares", "nas flat", "nas batch")
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def decode(layout: str, outputs: list[Array], confidence: float = 0.4, limit: int = TOP_K) -> Detections:
    spec = LAYOUTS[layout][0]
    return load_head(spec.family).decode(outputs, spec, confidence, limit)


def distinct(truth: Truth) -> bool:
    """Whether no two boxes fall on one cell and anchor of a grid, where the second replaces the first."""
    level, anchor = truth.places // 3 % 3, truth.places % 3
    stride = np.array([32, 16, 8])[level]
    at = {tuple(row) for row in np.c_[level, anchor, *(truth.cxcywh[:, :2] // stride[:, None]).T].tolist()}
    return len(at) == len(truth.scores)


@layouts
@settings(deadline=None, max_examples=15)
@given(n=st.integers(0, 40), seed=st.integers(0, 1000))
def test_known_boxes_come_back(layout: str, n: int, seed: int) -> None:
    truth = truth_of(n, seed)
    if layout.startswith("v3") and not distinct(truth):
        return
    found = decode(layout, LAYOUTS[layout][1](truth))
    np.testing.assert_allclose(found.boxes_xyxy, truth.boxes, atol=5e-3)
    np.testing.assert_allclose(found.scores, truth.scores, atol=1e-5)
    np.testing.assert_array_equal(found.class_ids, truth.classes)


@layouts
def test_the_confidence_and_the_limit_cut(layout: str) -> None:
    truth = truth_of(12, 4)
    assert distinct(truth)
    outputs = LAYOUTS[layout][1](truth)
    for confidence in (0.5, 0.7, 0.999):
        assert len(decode(layout, outputs, confidence)) == int((truth.scores >= confidence).sum())
    best = decode(layout, outputs, 0.4, 1)
    np.testing.assert_allclose(best.boxes_xyxy, truth.boxes[:1], atol=5e-3)


@layouts
def test_nothing_there_is_no_detection(layout: str) -> None:
    nothing = truth_of(0, 0)
    assert len(decode(layout, LAYOUTS[layout][1](nothing), 0.05)) == 0


@pytest.mark.parametrize("layout", ROWS)
def test_padding_is_none_even_at_confidence_0(layout: str) -> None:
    truth = truth_of(3, 2)
    assert len(decode(layout, LAYOUTS[layout][1](truth), 0.0)) == 3


@layouts
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(layout: str, bad: float) -> None:
    count = len(LAYOUTS[layout][1](truth_of(3, 1)))
    for index in range(count):
        outputs = LAYOUTS[layout][1](truth_of(3, 1))
        if outputs[index].dtype.kind == "i":
            continue
        # Where nothing is: it must be noticed even so.
        outputs[index][(0,) + (-1,) * (outputs[index].ndim - 1)] = bad
        with pytest.raises(ModelError, match="NaN or infinity"):
            decode(layout, outputs)


@layouts
def test_wrong_outputs_are_refused(layout: str) -> None:
    good = LAYOUTS[layout][1](truth_of(3, 1))
    wrong: list[list[Array]] = [
        [],
        [*good, good[0]],
        [output[0] for output in good],  # no batch dimension
        [np.concatenate([output, output]) for output in good],  # two frames
        [output.astype(np.complex64) for output in good],
        [
            output[:, :3] if layout in ("v8", "v8 in shares", "v8 with masks") else output[..., :3]
            for output in good
        ],
        [output * 0 + 700 for output in good],  # no scores, no logarithms
    ]
    for outputs in wrong:
        with pytest.raises(ModelError) as caught:
            decode(layout, outputs)
        assert caught.value.hint


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if not name.startswith(("v3 ", "nas batch"))])
def test_places_may_come_in_any_order(layout: str) -> None:
    outputs = LAYOUTS[layout][1](truth_of(20, 7))
    axis = 2 if layout.startswith("v8") and layout != "v8 transposed" else 1
    order = np.random.default_rng(1).permutation(outputs[0].shape[axis])
    mixed = [np.take(output, order, axis) for output in outputs]
    assert decode(layout, mixed) == decode(layout, outputs)


@layouts
def test_float16_comes_back_coarser(layout: str) -> None:
    truth = truth_of(8, 4)
    outputs = [
        output.astype(np.float16) if output.dtype == np.float32 else output
        for output in LAYOUTS[layout][1](truth)
    ]
    found = decode(layout, outputs)
    assert found.boxes_xyxy.dtype == np.float32
    # By place, for scores that half precision makes equal may change their order.
    order = np.argsort(found.boxes_xyxy[:, 0])
    np.testing.assert_allclose(found.boxes_xyxy[order], truth.boxes[np.argsort(truth.boxes[:, 0])], atol=0.7)


@pytest.mark.parametrize("layout", ["v5", "v8", "v3 of the zoo", "nas"])
def test_no_more_than_the_best_thousand(layout: str) -> None:
    n = 3549
    boxes = np.tile(np.array([20, 20, 9, 9], np.float32), (1, n, 1))
    scores = np.linspace(0.5, 0.9, n, dtype=np.float32)[None, :, None]
    outputs = {
        "v5": [np.concatenate([boxes, scores * 0 + 1, scores], 2)],
        "v8": [np.concatenate([boxes, scores], 2).transpose(0, 2, 1)],
        "v3 of the zoo": [boxes, scores.transpose(0, 2, 1)],
        "nas": [boxes, scores],
    }
    found = decode(layout, outputs[layout])
    assert len(found) == TOP_K
    np.testing.assert_array_equal(found.scores, np.sort(scores.ravel())[::-1][:TOP_K])


def test_a_row_of_v5_by_hand() -> None:
    row = [60, 40, 20, 10, 0.5, 0.2, 0.8]
    found = load_head("yolov5").decode([np.array([[row]], np.float32)], spec_of("yolov5"), 0.3)
    assert found.boxes_xyxy.tolist() == [[50, 35, 70, 45]]
    assert found.scores.tolist() == pytest.approx([0.4])
    assert found.class_ids.tolist() == [1]


def test_a_cell_of_v3_by_hand() -> None:
    # Stride 32 of 128x96: 3 rows of 4; cell of row 1, column 2, second anchor (156, 198).
    outputs = [np.full((1, 3 * 6, 96 // s, 128 // s), -30, np.float32) for s in (32, 16, 8)]
    outputs[0][0, 6:12, 1, 2] = [0, 0, np.log(0.5), 0, 0, 30]
    found = load_head("yolov3").decode(outputs, spec_of("yolov3"), 0.3)
    assert found.scores.tolist() == pytest.approx([0.5])
    # Centre (2.5, 1.5) * 32 = (80, 48), size (78, 198).
    np.testing.assert_allclose(found.boxes_xyxy, [[41, -51, 119, 147]], atol=1e-4)


def test_anchors_of_v3_are_an_option_by_output() -> None:
    outputs = [np.full((1, 18, 96 // s, 128 // s), -30, np.float32) for s in (32, 16)]
    outputs[1][0, 0:6, 0, 0] = [0, 0, 0, 0, 30, 30]
    for anchors, side in ((None, (23, 27)), ([[[9, 9]] * 3, [[16, 8]] * 3], (16, 8))):
        spec = spec_of("yolov3", options={"anchors": anchors} if anchors else {})
        box = load_head("yolov3").decode(outputs, spec, 0.3).boxes_xyxy[0]
        np.testing.assert_allclose(box[2:] - box[:2], side, rtol=1e-5)
    for wrong in ([[[9, 9]] * 3], [[[9, 9]] * 3, [[16, 0]] * 3], "12,3", [[[1, 2], [3, 4]]] * 2):
        with pytest.raises(ModelError, match="option anchors"):
            load_head("yolov3").decode(outputs, spec_of("yolov3", options={"anchors": wrong}), 0.3)


def test_v3_gives_each_class_of_a_place_and_the_others_the_best() -> None:
    boxes = np.array([[[10, 10, 20, 20]]], np.float32)
    scores = np.array([[[0.9, 0.6]]], np.float32)
    found = load_head("yolov3").decode([boxes, scores.transpose(0, 2, 1)], spec_of("yolov3"), 0.4)
    assert found.class_ids.tolist() == [0, 1]
    assert load_head("yolonas").decode([boxes, scores], spec_of("yolonas"), 0.4).class_ids.tolist() == [0]
    table = np.concatenate([boxes, scores], 2).transpose(0, 2, 1)
    assert load_head("yolov8").decode([table], spec_of("yolov8"), 0.4).class_ids.tolist() == [0]


@pytest.mark.parametrize("family", ["yolov5", "yolov8"])
def test_logits_and_boxes_that_are_not_decoded_are_refused(family: str) -> None:
    truth = truth_of(5, 1)
    encode = table5 if family == "yolov5" else table8
    table = encode(truth)[0]
    places = np.s_[0, :4] if family == "yolov8" else np.s_[0, :, :4]
    table[places] = -0.7
    with pytest.raises(ModelError, match="negative size"):
        load_head(family).decode([table], spec_of(family), 0.4)
    table = encode(truth)[0]
    table[0, ..., -1] = -3  # a logit
    with pytest.raises(ModelError, match="not 0 to 1"):
        load_head(family).decode([table], spec_of(family), 0.0)


def test_one_box_of_negative_size_among_many_has_no_area() -> None:
    table = table8(truth_of(20, 5))[0]
    place = int(table[0, 4:].max(axis=0).argmax())
    table[0, 2, place] = -0.5
    box = load_head("yolov8").decode([table], spec_of("yolov8"), 0.4).boxes_xyxy[0]
    assert box[0] == box[2]


@pytest.mark.parametrize("layout", ["v7 end to end", "v10", "nas flat"])
def test_class_ids_that_are_none_are_refused(layout: str) -> None:
    outputs = LAYOUTS[layout][1](truth_of(5, 1))
    column = 5 if layout == "v7 end to end" else -1
    for wrong in (0.37, -1):
        outputs[0][0, 0, column] = wrong
        with pytest.raises(ModelError, match="no class ids"):
            decode(layout, outputs)


@pytest.mark.parametrize("wrong", [CLASSES + 1, -1, "five"])
def test_a_wrong_number_of_classes_is_told(wrong: Any) -> None:
    outputs = table8(truth_of(3, 1))
    with pytest.raises(ModelError, match="its option classes says"):
        load_head("yolov8").decode(outputs, spec_of("yolov8", options={"classes": wrong}), 0.4)


def test_nas_refuses_a_number_that_its_rows_do_not_have() -> None:
    outputs = nas_batch(truth_of(3, 1))
    outputs[0][...] = 81
    with pytest.raises(ModelError, match="81 objects among 80"):
        decode("nas batch", outputs)
