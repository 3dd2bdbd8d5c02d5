"""NanoDet-Plus decoded and recognised; the real files of NanoDet against a decoder written out in loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo, recognise
from pipeline.heads.base import grid_counts, grid_points
from pipeline.heads.nanodet import NanodetHead
from pipeline.messages import ModelSpec
from tests.heads import real

WIDTH, HEIGHT, CLASSES, BINS = 128, 96, 5, 8
STRIDES = (8, 16, 32, 64)
HEAD = NanodetHead()
Array = NDArray[np.float32]


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec("m", "", "nanodet", tuple("abcde"), WIDTH, HEIGHT, **fields)


def empty(bins: int = BINS) -> Array:
    return np.zeros((1, sum(grid_counts(WIDTH, HEIGHT, STRIDES)), CLASSES + 4 * bins), np.float32)


def reference(
    scores: Array, logits: Array, width: int, height: int, offset: float, confidence: float
) -> list[tuple[float, int, list[float]]]:
    """Every class over the confidence: score, class and box, one place and one side after the other."""
    found = []
    strides = STRIDES if len(scores) == sum(grid_counts(width, height, STRIDES)) else STRIDES[:3]
    place = 0
    for stride in strides:
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                if scores[place].max() >= confidence:
                    sides = []
                    for side in np.split(logits[place].astype(np.float64), 4):
                        weights = np.exp(side - side.max())
                        mean = sum(k * weight for k, weight in enumerate(weights)) / weights.sum()
                        sides.append(mean * stride)
                    x, y = (column + offset) * stride, (row + offset) * stride
                    box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
                    found += [
                        (float(score), class_id, box)
                        for class_id, score in enumerate(scores[place])
                        if score >= confidence
                    ]
                place += 1
    assert place == len(scores)
    return sorted(found, key=lambda one: -one[0])


def assert_like(found: Any, want: list[tuple[float, int, list[float]]]) -> None:
    np.testing.assert_allclose(found.scores, [one[0] for one in want])
    assert found.class_ids.tolist() == [one[1] for one in want]
    np.testing.assert_allclose(found.boxes_xyxy, np.reshape([one[2] for one in want], (-1, 4)), atol=1e-2)


def test_plus_by_hand() -> None:
    raw = empty()
    cells = grid_counts(WIDTH, HEIGHT, STRIDES)
    place = cells[0] + 8 + 3  # stride 16, second row, fourth column: corner (48, 16)
    raw[0, place, 2] = 0.75
    for side, distance in enumerate((0, 1, 2, 7)):
        raw[0, place, CLASSES + side * BINS + distance] = 60
    found = HEAD.decode([raw], spec_of(), 0.4)
    assert found.class_ids.tolist() == [2]
    np.testing.assert_allclose(found.boxes_xyxy, [[48, 0, 80, 128]], atol=1e-3)
    centred = HEAD.decode([raw], spec_of(options={"offset": 0.5}), 0.4)
    np.testing.assert_allclose(centred.boxes_xyxy, [[56, 8, 88, 136]], atol=1e-3)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(0, 60), seed=st.integers(0, 999), bins=st.sampled_from([8, 11]))
def test_plus_boxes_come_back(n: int, seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    points, strides = grid_points(WIDTH, HEIGHT, STRIDES, 0.0)
    places = rng.permutation(len(points))[:n]
    sides = rng.uniform(0, 6.9, (n, 4))
    scores, classes = rng.permutation(n) / max(n, 1) * 0.5 + 0.45, rng.integers(0, CLASSES, n)
    raw = empty(bins)
    raw[0, places, classes] = scores
    # Two neighbouring bins share the weight so that the mean is the side.
    low = np.floor(sides).astype(int)
    weights = np.full((n, 4, bins), 1e-9)
    rows, columns = np.indices(sides.shape)
    weights[rows, columns, low] += 1 - (sides - low)
    weights[rows, columns, low + 1] += sides - low
    raw[0, places, CLASSES:] = np.log(weights).reshape(n, 4 * bins)
    found = HEAD.decode([raw], spec_of(options={"bins": bins}), 0.4)
    signs = np.array([-1, -1, 1, 1])
    boxes = np.hstack([points[places]] * 2) + sides * signs * strides[places]
    order = np.argsort(-scores, kind="stable")
    np.testing.assert_allclose(found.boxes_xyxy, boxes[order], atol=2e-3)
    assert found.class_ids.tolist() == classes[order].tolist()


def test_every_place_full() -> None:
    rng = np.random.default_rng(0)
    raw = rng.random(empty().shape).astype(np.float32)
    found = HEAD.decode([raw], spec_of(), 0.4, 100_000)
    assert len(found) == int((raw[..., :CLASSES] >= 0.4).sum())
    want = reference(raw[0, :, :CLASSES], raw[0, :, CLASSES:], WIDTH, HEIGHT, 0.0, 0.4)
    assert_like(found, want)
    assert len(HEAD.decode([empty()], spec_of(), 0.05)) == 0


WRONG: dict[str, tuple[Array, dict[str, Any]]] = {
    "no batch": (empty()[0], {}),
    "two frames": (np.concatenate([empty(), empty()]), {}),
    "a place too few": (empty()[:, 1:], {}),
    "three strides": (empty()[:, : sum(grid_counts(WIDTH, HEIGHT, STRIDES[:3]))], {}),
    "no room for a class": (empty()[..., CLASSES:], {}),
    "logits for scores": (empty() - 3, {}),
    "bins that are none": (empty(), {"bins": "8"}),
    "one bin": (empty(), {"bins": 1}),
    "an offset in pixels": (empty(), {"offset": 4}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    output, options = WRONG[name]
    with pytest.raises(ModelError) as caught:
        HEAD.decode([output], spec_of(options=options), 0.3)
    assert caught.value.hint


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    raw = empty()
    raw[0, -1, -1] = bad
    with pytest.raises(ModelError, match="NaN or infinity"):
        HEAD.decode([raw], spec_of(), 0.5)


def plus(size: int, columns: int, cells: int, samples: Array | None = None) -> Signature:
    inputs = (TensorInfo("data", "float32", (1, 3, size, size)),)
    outputs = (TensorInfo("output", "float32", (1, cells, columns)),)
    return Signature(inputs, outputs, {}, {} if samples is None else {"output": samples})


SEEN = np.concatenate([np.full((1, 3598, 80), 0.01), np.full((1, 3598, 32), -1.5)], axis=2).astype(np.float32)
KNOWN = {
    "plus m 416": (plus(416, 112, 3598), 0.8, 80),
    "plus m 416, seen": (plus(416, 112, 3598, SEEN), 0.9, 80),
    "plus m 320": (plus(320, 112, 2125), 0.8, 80),
    "plus of one class": (plus(416, 33, 3598), 0.8, 1),
}


@pytest.mark.parametrize("name", KNOWN)
def test_plus_is_recognised(name: str) -> None:
    given_signature, confidence, classes = KNOWN[name]
    (guess,) = recognise(given_signature)
    assert (guess.family, guess.confidence, guess.classes) == ("nanodet", confidence, classes)
    assert guess.overrides["letterbox"] == "stretch"
    assert guess.overrides["channels"] == "bgr"
    assert guess.overrides["mean"] == (103.53, 116.28, 123.675)
    assert guess.overrides["nms_iou"] == 0.6


def test_what_is_no_plus() -> None:
    refused = (
        plus(416, 112, 3549),  # three strides
        plus(416, 32, 3598),  # no class
        plus(416, 112, 3598, SEEN * 4 + 1),  # no scores where they belong
    )
    for one in refused:
        assert HEAD.recognise(one) is None


def test_four_strides_of_their_own_names_are_plus_too() -> None:
    outputs = tuple(
        TensorInfo(f"{kind}_pred_stride_{stride}", "float32", (1, cells, columns))
        for kind, columns in (("cls", 80), ("dis", 32))
        for stride, cells in zip(STRIDES, (2704, 676, 169, 49), strict=True)
    )
    (guess,) = recognise(Signature((TensorInfo("data", "float32", (1, 3, 416, 416)),), outputs))
    assert (guess.family, guess.overrides["options"]) == ("nanodet", {"offset": 0.0})


def test_the_real_nanodet_m_decodes_as_written_out() -> None:
    spec, outputs, _ = real.run("nanodet_m_416.onnx", real.BUS)
    scores, logits = (np.concatenate(part, axis=1)[0] for part in (outputs[:3], outputs[3:]))
    found = HEAD.decode(outputs, spec, 0.3)
    assert_like(found, reference(scores, logits, 416, 416, 0.5, 0.3))
    assert spec.labels[found.class_ids[0]] == "bus"


def test_the_real_default_decodes_as_written_out() -> None:
    spec, (boxes, scores), _ = real.run("default/nanodet_g_416_int8.onnx", real.BUS)
    places, classes = np.nonzero(scores[0] >= 0.3)
    best = np.argsort(-scores[0][places, classes], kind="stable")
    found = HEAD.decode([boxes, scores], spec, 0.3)
    np.testing.assert_array_equal(found.boxes_xyxy, boxes[0][places[best]])
    np.testing.assert_array_equal(found.class_ids, classes[best])
    assert spec.labels[found.class_ids[0]] == "bus"
