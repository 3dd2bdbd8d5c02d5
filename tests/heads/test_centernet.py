"""CenterNet: peaks of heat maps against a plain search; known with and without a test picture; refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads.centernet import CenternetHead
from pipeline.messages import Detections, ModelSpec
from tests.models.graphs import save_graph

WIDTH, HEIGHT, STRIDE = 64, 32, 4
ROWS, COLUMNS = HEIGHT // STRIDE, WIDTH // STRIDE
HEAD = CenternetHead()
Array = NDArray[np.float32]


def spec_of(labels: int = 3, **options: Any) -> ModelSpec:
    options = {"scores": "probabilities"} | options
    return ModelSpec("m", "", "centernet", tuple(map(str, range(labels))), WIDTH, HEIGHT, options=options)


def logit(values: Array) -> Array:
    values = np.clip(values, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(values) - np.log1p(-values), np.float32)


def maps(objects: list[tuple[int, int, int, float, float, float, float, float]]) -> list[Array]:
    """Heat, sizes and offsets of objects: class, row, column, score, width and height in cells, offset."""
    heat = np.full((1, 3, ROWS, COLUMNS), 0.01, np.float32)
    sizes, offsets = (np.zeros((1, 2, ROWS, COLUMNS), np.float32) for _ in range(2))
    for class_id, row, column, score, width, height, x, y in objects:
        heat[0, class_id, row, column] = score
        sizes[0, :, row, column] = width, height
        offsets[0, :, row, column] = x, y
    return [heat, sizes, offsets]


# Decoding


def test_peaks_by_hand() -> None:
    outputs = maps(
        [(1, 2, 3, 0.8, 4, 2, 0.5, 0.25), (0, 7, 15, 0.6, 2, 2, 0, 0.5), (2, 0, 0, 0.3, 1, 1, 0, 0)]
    )
    # Beside a peak it is warm, which is no object; across classes peaks do not hide each other.
    outputs[0][0, 1, 2, 4], outputs[0][0, 0, 2, 3] = 0.7, 0.5
    found = HEAD.decode(outputs, spec_of(), 0.4)
    assert found.class_ids.tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.scores, [0.8, 0.6, 0.5])
    np.testing.assert_allclose(found.boxes_xyxy[0], [14 - 8, 9 - 4, 14 + 8, 9 + 4])
    np.testing.assert_allclose(found.boxes_xyxy[1], [60 - 4, 30 - 4, 60 + 4, 30 + 4])
    assert len(HEAD.decode(outputs, spec_of(), 0.4, limit=1)) == 1


def test_sizes_may_be_pixels() -> None:
    outputs = maps([(1, 2, 3, 0.8, 4, 2, 0.5, 0.25)])
    np.testing.assert_allclose(
        HEAD.decode(outputs, spec_of(sizes="pixels"), 0.4).boxes_xyxy, [[12, 8, 16, 10]]
    )


def test_a_size_below_zero_is_none() -> None:
    found = HEAD.decode(maps([(0, 1, 1, 0.9, -0.2, 2, 0, 0)]), spec_of(), 0.5)
    np.testing.assert_allclose(found.boxes_xyxy, [[4, 0, 4, 8]])


def plain(outputs: list[Array], confidence: float) -> Detections:
    """Cell by cell: a 3x3 maximum, as the paper has it."""
    heat, sizes, offsets = (output[0] for output in outputs)
    boxes, scores, ids = [], [], []
    for class_id in range(len(heat)):
        for row in range(ROWS):
            for column in range(COLUMNS):
                around = heat[class_id, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                score = heat[class_id, row, column]
                if score < confidence or score < around.max():
                    continue
                x, y = column + offsets[0, row, column], row + offsets[1, row, column]
                w, h = sizes[0, row, column] / 2, sizes[1, row, column] / 2
                boxes.append([(x - w) * STRIDE, (y - h) * STRIDE, (x + w) * STRIDE, (y + h) * STRIDE])
                scores.append(score)
                ids.append(class_id)
    order = np.argsort(-np.array(scores), kind="stable")
    return Detections(np.array(boxes).reshape(-1, 4), scores, ids).select(order)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 999),
    confidence=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
    kind=st.sampled_from(["probabilities", "sigmoid"]),
)
def test_all_peaks_are_found(seed: int, confidence: float, kind: str) -> None:
    rng = np.random.default_rng(seed)
    ranks = rng.permutation(3 * ROWS * COLUMNS).reshape(1, 3, ROWS, COLUMNS) / (3 * ROWS * COLUMNS)
    heat = np.asarray(ranks * 0.98 + 0.01, np.float32)
    rest = [rng.uniform(0, 5, (1, 2, ROWS, COLUMNS)).astype(np.float32) for _ in range(2)]
    given_heat = logit(heat) if kind == "sigmoid" else heat
    found = HEAD.decode([given_heat, *rest], spec_of(scores=kind), confidence, 5000)
    want = plain([heat, *rest], confidence)
    assert found.class_ids.tolist() == want.class_ids.tolist()
    np.testing.assert_allclose(found.boxes_xyxy, want.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(found.scores, want.scores, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_known_boxes_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Two cells apart, so that none hides another.
    places = rng.permutation((ROWS // 2) * (COLUMNS // 2))[:10]
    cells = [(int(place) // (COLUMNS // 2) * 2, int(place) % (COLUMNS // 2) * 2) for place in places]
    scores = rng.permutation(10) / 20 + 0.45
    objects = [
        (int(rng.integers(3)), row, column, float(score), *map(float, rng.uniform(0.5, 6, 2)), *rng.random(2))
        for (row, column), score in zip(cells, scores, strict=True)
    ]
    found = HEAD.decode(maps(objects), spec_of(), 0.4)
    objects.sort(key=lambda one: -one[3])
    assert found.class_ids.tolist() == [one[0] for one in objects]
    for box, (_, row, column, _, width, height, x, y) in zip(found.boxes_xyxy, objects, strict=True):
        centre = np.array([column + x, row + y])
        half = np.array([width, height]) / 2
        np.testing.assert_allclose(box, np.concatenate([centre - half, centre + half]) * STRIDE, atol=1e-3)


def test_a_cold_map_has_no_objects_and_a_flat_one_every_cell() -> None:
    outputs = maps([])
    assert len(HEAD.decode(outputs, spec_of(), 0.5)) == 0
    assert len(HEAD.decode(outputs, spec_of(), 0.0, 10_000)) == 3 * ROWS * COLUMNS


GOOD = maps([(1, 2, 3, 0.8, 4, 2, 0.5, 0.25)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", range(3))
def test_numbers_that_are_not_finite_are_refused(index: int, bad: float) -> None:
    outputs = [output.copy() for output in GOOD]
    outputs[index][0, 1, -1, -1] = bad
    with pytest.raises(ModelError, match="NaN or infinity"):
        HEAD.decode(outputs, spec_of(), 0.5)


WRONG: dict[str, tuple[list[Array], dict[str, Any], str]] = {
    "two outputs": (GOOD[:2], {}, "expects 3"),
    "no batch": ([output[0] for output in GOOD], {}, "expects float"),
    "two frames": ([np.concatenate([output, output]) for output in GOOD], {}, "expects float"),
    "heat last": ([*GOOD[1:], GOOD[0]], {}, "expects float"),
    "smaller offsets": ([*GOOD[:2], GOOD[2][..., 1:]], {}, "expects float"),
    "cells that do not divide the input": ([output[..., :7] for output in GOOD], {}, "do not divide"),
    "another stride along y": ([output[:, :, :4] for output in GOOD], {}, "do not divide"),
    "logits": ([GOOD[0] * 20 - 10, *GOOD[1:]], {}, "not 0 to 1"),
    "heat of no kind": (GOOD, {"scores": "softmax"}, "option scores"),
    "sizes of no kind": (GOOD, {"sizes": "shares"}, "option sizes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options, match = WRONG[name]
    with pytest.raises(ModelError, match=match) as caught:
        HEAD.decode(outputs, spec_of(**options), 0.1)
    assert caught.value.hint


def test_a_class_without_a_label_is_refused() -> None:
    with pytest.raises(ModelError, match="finds class 1, and has 1 labels"):
        HEAD.decode(GOOD, spec_of(1), 0.1)


# Recognition

NAMES = ("hm", "wh", "reg")


def signature(
    names: tuple[str, ...] = NAMES,
    classes: int = 80,
    order: tuple[int, ...] = (0, 1, 2),
    cells: tuple[int, int] = (128, 128),
    seen: str = "",
    size: int = 512,
    more: tuple[TensorInfo, ...] = (),
) -> Signature:
    shapes = [(1, classes, *cells), (1, 2, *cells), (1, 2, *cells)]
    infos = tuple(TensorInfo(names[i], "float32", shapes[i]) for i in order)
    samples: dict[str, NDArray[Any]] = {}
    if seen:
        rng = np.random.default_rng(0)
        heat = rng.normal(-5, 1, (1, classes, 8, 8))
        values = [heat if seen == "logits" else 1 / (1 + np.exp(-heat))]
        values += [rng.uniform(1, 9, (1, 2, 8, 8)), rng.uniform(0.2, 0.8, (1, 2, 8, 8))]
        samples = dict(zip(names, values, strict=True))
    return Signature((TensorInfo("in", "float32", (1, 3, size, size)),), (*infos, *more), {}, samples)


NUMBERED = ("508", "511", "514")
LANDMARKS = TensorInfo("lm", "float32", (1, 10, 128, 128))
KNOWN: dict[str, tuple[Signature, tuple[float, float], tuple[str, ...], str]] = {
    "named": (signature(seen="logits"), (0.85, 1), NAMES, "sigmoid"),
    "named, in another order": (signature(order=(2, 0, 1), seen="logits"), (0.85, 1), NAMES, "sigmoid"),
    "named, after its sigmoid": (signature(seen="probabilities"), (0.85, 1), NAMES, "probabilities"),
    "named, unseen": (signature(), (0.7, 0.85), NAMES, "sigmoid"),
    "named, two classes": (signature(classes=2, seen="logits"), (0.85, 1), NAMES, "sigmoid"),
    "named, with landmarks": (signature(seen="logits", more=(LANDMARKS,)), (0.85, 1), NAMES, "sigmoid"),
    "numbered": (signature(NUMBERED, seen="logits"), (0.65, 0.8), NUMBERED, "sigmoid"),
    "numbered, offsets before sizes": (
        signature(NUMBERED, order=(0, 2, 1), seen="logits"),
        (0.65, 0.8),
        NUMBERED,
        "sigmoid",
    ),
}


def guess_of(signature: Signature) -> Guess | None:
    return next((guess for guess in recognise(signature) if guess.family == "centernet"), None)


@pytest.mark.parametrize("name", KNOWN)
def test_exports_are_known(name: str) -> None:
    given_signature, (low, high), names, scores = KNOWN[name]
    guess = guess_of(given_signature)
    assert guess is not None
    assert low <= guess.confidence <= high
    assert guess.overrides["output_names"] == names
    assert guess.overrides["options"] == {"scores": scores}
    assert guess.classes == heat_of(given_signature).shape[1]
    assert (guess.overrides["channels"], guess.overrides["letterbox"]) == ("bgr", "center")
    others = [one for one in recognise(given_signature) if one.family != "centernet"]
    assert all(one.confidence <= guess.confidence - 0.2 for one in others)


def heat_of(signature: Signature) -> TensorInfo:
    return next(info for info in signature.outputs if info.name in ("hm", NUMBERED[0]))


OTHERS: dict[str, Signature] = {
    "raw maps of a yolo": Signature(
        (TensorInfo("images", "float32", (1, 3, 640, 640)),),
        tuple(TensorInfo(str(cells), "float32", (1, 255, cells, cells)) for cells in (80, 40, 20)),
    ),
    "cells of another stride": signature(size=1024, cells=(32, 32)),
    "three maps of two": signature(NUMBERED, classes=2),
    "numbered, with landmarks": signature(NUMBERED, more=(LANDMARKS,)),
    "sizes of other cells": Signature(
        (TensorInfo("in", "float32", (1, 3, 512, 512)),),
        (
            TensorInfo("hm", "float32", (1, 80, 128, 128)),
            TensorInfo("wh", "float32", (1, 2, 64, 64)),
            TensorInfo("reg", "float32", (1, 2, 128, 128)),
        ),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not_taken_for_it(name: str) -> None:
    assert guess_of(OTHERS[name]) is None


def test_a_graph_runs_from_file_to_detections(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from pipeline.models.onnx import OnnxRunner

    path = save_graph(tmp_path / "c.onnx", {"hm": (3, 16, 16), "wh": (2, 16, 16), "reg": (2, 16, 16)})
    runner = OnnxRunner(str(path), device="cpu")
    spec = runner.open()
    try:
        assert (spec.family, spec.nms_iou, len(spec.labels)) == ("centernet", None, 3)
        buffers = [np.zeros(shape, np.float32) for shape in runner.output_shapes]
        runner.forward(np.full((1, 3, 64, 64), 0.5, np.float32), buffers)
        # All is 0.5: every cell of a flat map is a peak.
        found = CenternetHead().decode(buffers, spec, 0.5, 10_000)
        assert len(found) == 3 * 16 * 16
        np.testing.assert_allclose(found.boxes_xyxy[0], [1, 1, 3, 3])
    finally:
        runner.close()
