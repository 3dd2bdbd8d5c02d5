"""Whatever finite numbers a network gives: valid detections or a `ModelError`, and no warning of numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.heads import load_classifier, load_head
from pipeline.heads._priors import ULTRAFACE, count_of
from pipeline.messages import LetterboxMap, ModelSpec
from pipeline.tasks.reading import Reader

SIDE = 64
LABELS = ("a", "b", "c")
CLASSES = len(LABELS)
LETTERBOX = LetterboxMap(0.05, 0.05, 0.0, 14.0, 1280, 720)
PRIORS = count_of(ULTRAFACE, SIDE, SIDE)
#: Numbers at which arithmetic goes wrong, and those that other layouts have in the same place.
ODD = np.array(
    [0, -0.0, 1, -1, 0.5, 1.001, -0.001, 3.4028234e38, -3.4028234e38, 1e-45, 1e30, -1e30, 1e19, 2.0**31,
     -(2.0**63), 2.0**63, 88, 89, -104, 12, 300, 3, 65504],
    np.float32,
)  # fmt: skip
RANGES = ("odd", "unit", "zeros", "ones", "normal", "huge", "ids", "mostly unit")

#: Family, shapes of the outputs of a frame (0 stands for any number of rows), and fields of the spec.
LAYOUTS: dict[str, tuple[str, tuple[tuple[int, ...], ...], dict[str, Any]]] = {
    "yolox": ("yolox", ((84, 5 + CLASSES),), {}),
    "yolov5": ("yolov5", ((0, 5 + CLASSES),), {}),
    "yolov5 rows": ("yolov5", ((0, 7),), {"max_rows": 9}),
    "yolov8": ("yolov8", ((4 + CLASSES, 0),), {}),
    "yolov8 shares": ("yolov8", ((0, 4 + CLASSES),), {"options": {"transposed": True, "normalized": True}}),
    "yolov10": ("yolov10", ((0, 6),), {}),
    "yolov3 zoo": ("yolov3", ((0, 4), (CLASSES, 0)), {}),
    "yolov3 grids": ("yolov3", tuple((3 * (5 + CLASSES), n, n) for n in (2, 4, 8)), {}),
    "yolonas": ("yolonas", ((0, 4), (0, CLASSES)), {}),
    "yolonas flat": ("yolonas", ((0, 7),), {"max_rows": 9}),
    "yolonas batch": ("yolonas", ((1,), (0, 4), (0,), (0,)), {}),
    "nanodet": ("nanodet", ((0, 4), (0, CLASSES)), {"output_names": ("boxes", "scores")}),
    "nanodet-m": ("nanodet", tuple((n, c) for c in (CLASSES, 32) for n in (64, 16, 4)), {}),
    "nanodet-plus": ("nanodet", ((85, CLASSES + 32),), {}),
    "picodet": ("picodet", tuple((n, c) for c in (CLASSES, 32) for n in (64, 16, 4, 1)), {}),
    "picodet without nms": ("picodet", ((0, 4), (CLASSES, 0)), {}),
    "picodet rows": ("picodet", ((0, 6),), {"max_rows": 9}),
    "detr finished": ("detr", ((0,), (0, 4), (0,)), {}),
    "detr": ("detr", ((0, 4), (0, CLASSES)), {}),
    "detr softmax": ("detr", ((0, 4), (0, CLASSES + 1)), {"options": {"scores": "softmax"}}),
    "detr joined": ("detr", ((0, 4 + CLASSES),), {}),
    "ssd": ("ssd", ((0, 4), (0,), (0,), ()), {}),
    "ssd_raw": ("ssd_raw", ((0, CLASSES + 1), (0, 4)), {"options": {"scores": "softmax"}}),
    "ssd_raw offsets": (
        "ssd_raw", ((PRIORS, CLASSES + 1), (PRIORS, 4)),
        {"options": {"scores": "softmax", "boxes": "offsets", "priors": ULTRAFACE}},
    ),
    "rcnn": ("rcnn", ((0, 4), (0,), (0,)), {}),
    "rcnn with scores": ("rcnn", ((0, 5), (0,)), {}),
    "rcnn rows": ("rcnn", ((0, 6),), {}),
    "centernet": ("centernet", ((CLASSES, 16, 16), (2, 16, 16), (2, 16, 16)), {}),
    "fake": ("fake", ((0, 6),), {}),
}  # fmt: skip


def anything(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray[Any, Any]:
    made: Any = np.full(shape, kind == "ones")
    if kind == "odd":
        made = rng.choice(ODD, shape)
    elif kind == "unit":
        made = rng.random(shape)
    elif kind == "normal":
        made = rng.normal(0, 4, shape)
    elif kind == "huge":
        made = rng.uniform(-3.4e38, 3.4e38, shape)
    elif kind == "ids":
        made = rng.integers(0, CLASSES + 1, shape)
    elif kind == "mostly unit":
        made = np.where(rng.random(shape) < 0.02, rng.choice(ODD, shape), rng.random(shape))
    return np.asarray(made, np.float32)


@pytest.mark.parametrize("name", LAYOUTS)
@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 84, 150]),
    st.lists(st.sampled_from(RANGES), min_size=8, max_size=8),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    st.sampled_from([1, 7, 1000]),
)
def test_any_numbers_decode_or_are_refused(
    name: str, seed: int, rows: int, kinds: list[str], confidence: float, limit: int
) -> None:
    family, shapes, fields = LAYOUTS[name]
    rng = np.random.default_rng(seed)
    outputs = [
        anything(rng, (1, *(size or rows for size in shape)), kind)
        for shape, kind in zip(shapes, kinds, strict=False)
    ]
    spec = ModelSpec("m", "", family, LABELS, SIDE, SIDE, nms_iou=0.5, **fields)
    try:
        found = load_head(family).decode(outputs, spec, confidence, limit)
    except ModelError:
        return
    assert len(found) <= limit
    assert np.isfinite(found.boxes_xyxy).all()
    assert ((found.scores >= np.float32(confidence)) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.class_ids >= 0) & (found.class_ids < CLASSES)).all()
    reader = Reader(spec, confidence=confidence, classes=LABELS[:1])
    try:
        kept = reader.read(outputs, LETTERBOX).detections
    except ModelError:
        assert limit < 1000, "what the head gave, the task can use"
        return
    assert (kept.class_ids == 0).all()
    assert ((kept.boxes_xyxy >= 0) & (kept.boxes_xyxy <= [1280, 720, 1280, 720])).all()


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 1000]),
    st.sampled_from(RANGES),
    st.sampled_from([None, "logits", "softmax", "sigmoid", "sigmoid_logits"]),
)
def test_any_numbers_classify_or_are_refused(seed: int, classes: int, kind: str, scores: str | None) -> None:
    output = anything(np.random.default_rng(seed), (1, classes), kind)
    options = {} if scores is None else {"scores": scores}
    spec = ModelSpec("m", "", "classifier", (), SIDE, SIDE, kind="classifier", options=options)
    try:
        found = load_classifier("classifier").classify([output], spec, 5)
    except ModelError:
        return
    assert len(found.class_ids) == len(found.scores) == min(5, classes)
    assert all(0 <= score <= 1 for score in found.scores)
    assert list(found.scores) == sorted(found.scores, reverse=True)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("yolov10", (1, 1, 9, 9, 0.9, CLASSES)),
        ("yolov5 rows", (0, 1, 1, 9, 9, CLASSES, 0.9)),
        ("yolonas flat", (0, 1, 1, 9, 9, 0.9, CLASSES)),
        ("fake", (1, 1, 9, 9, 0.9, -1)),
    ],
)
def test_a_class_without_a_label_is_refused(name: str, row: tuple[float, ...]) -> None:
    family, _, fields = LAYOUTS[name]
    spec = ModelSpec("m", "", family, LABELS, SIDE, SIDE, **fields)
    with pytest.raises(ModelError, match=r"finds class -?\d, and has 3 labels") as caught:
        load_head(family).decode([np.array([[row]], np.float32)], spec, 0.4)
    assert "labels" in caught.value.hint
