"""Exports of all families, made as their own code makes them: each is recognised for what it is, or refused.

A refusal names the families in question; a wrong answer gives boxes that look right and are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo
from pipeline.heads.base import grid_counts, grid_points
from pipeline.models.describe import describe, judge

Array = np.ndarray[Any, Any]
Outputs = dict[str, Array]
RNG = np.random.default_rng(8)
SIZES = ((320, 320), (416, 256), (64, 64), (96, 96))
CLASSES = (1, 2, 80, 91)
ULTRALYTICS = {"author": "Ultralytics", "stride": "32", "task": "detect"}


def likely(rows: int, columns: int, mean: float = -5.0) -> Array:
    """Probabilities as a network gives them for noise: low."""
    return np.asarray(1 / (1 + np.exp(-RNG.normal(mean, 1.5, (rows, columns)))))


def cells(size: tuple[int, int], strides: Sequence[int] = (8, 16, 32), times: int = 1) -> Array:
    """Decoded cxcywh, each near its own cell."""
    points, steps = grid_points(*size, tuple(strides), 0.5)
    points, steps = np.tile(points, (times, 1)), np.tile(steps, (times, 1))
    centres = points + RNG.normal(0, 0.5, points.shape) * steps
    return np.hstack([centres, np.exp(RNG.normal(0.7, 0.8, points.shape)) * steps])


def corners(boxes: Array) -> Array:
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])


def count(size: tuple[int, int], strides: Sequence[int] = (8, 16, 32)) -> int:
    return sum(grid_counts(*size, strides))


def table(boxes: Array, classes: int, objectness: bool | float = False) -> Array:
    parts = [boxes, likely(len(boxes), classes)]
    if objectness:
        parts.insert(1, likely(len(boxes), 1) if objectness is True else np.full((len(boxes), 1), objectness))
    return np.hstack(parts)


def raw_yolox(size: tuple[int, int], classes: int) -> Array:
    rows = count(size)
    return np.hstack([RNG.normal(0.5, 0.9, (rows, 4)), likely(rows, 1), likely(rows, classes)])


def finished(size: tuple[int, int], classes: int) -> Array:
    start = RNG.random((300, 2)) * size * 0.7
    falling = np.sort(likely(300, 1), axis=0)[::-1]
    return np.hstack([start, start + 9, falling, RNG.integers(0, classes, (300, 1))])


def queries(rows: int = 300) -> Array:
    return np.hstack([RNG.random((rows, 2)), RNG.random((rows, 2)) * 0.5])


def softmax(logits: Array) -> Array:
    weights = np.exp(logits)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def with_background(rows: int, classes: int) -> Array:
    logits = RNG.normal(0, 1, (rows, classes + 1))
    logits[:, 0] += 6
    return logits


def without_object(rows: int, classes: int) -> Array:
    return np.roll(with_background(rows, classes), -1, axis=1)


def levels(size: tuple[int, int], classes: int, strides: Sequence[int]) -> Outputs:
    scores = {f"a{s}": likely(n, classes) for s, n in zip(strides, grid_counts(*size, strides), strict=True)}
    return scores | {f"b{s[1:]}": RNG.normal(0, 1.5, (len(scores[s]), 32)) for s in scores}


Make = Callable[[tuple[int, int], int], Outputs]
MADE: dict[str, tuple[str, Make]] = {
    "yolox": ("yolox", lambda size, n: {"output": raw_yolox(size, n)}),
    "yolox, decoded": ("yolov5", lambda size, n: {"output": table(cells(size), n, True)}),
    "yolov6": ("yolov5", lambda size, n: {"outputs": table(cells(size), n, 1.0)}),
    "yolov5": ("yolov5", lambda size, n: {"output0": table(cells(size, times=3), n, True)}),
    "yolov3-tiny": ("yolov5", lambda size, n: {"output0": table(cells(size, (16, 32), 3), n, True)}),
    "yolov8": ("yolov8", lambda size, n: {"output0": table(cells(size), n).T}),
    "yolov8, transposed": ("yolov8", lambda size, n: {"output0": table(cells(size), n)}),
    "yolov8, P2": ("yolov8", lambda size, n: {"output0": table(cells(size, (4, 8, 16, 32)), n).T}),
    "yolov10": ("yolov10", lambda size, n: {"output0": finished(size, n)}),
    "yolonas": ("yolonas", lambda size, n: {"b": corners(cells(size)), "s": likely(count(size), n)}),
    "nanodet-m": ("nanodet", lambda size, n: levels(size, n, (8, 16, 32))),
    "picodet": ("picodet", lambda size, n: levels(size, n, (8, 16, 32, 64))),
    "nanodet-plus": (
        "nanodet",
        lambda size, n: {
            "output": np.hstack([likely(m := count(size, (8, 16, 32, 64)), n), RNG.normal(0, 1.5, (m, 32))])
        },
    ),
    "rt-detr": ("detr", lambda size, n: {"logits": RNG.normal(-4, 1, (300, n)), "pred_boxes": queries()}),
    "detr": ("detr", lambda size, n: {"logits": without_object(100, n), "pred_boxes": queries(100)}),
    "detr of nobody known": ("detr", lambda size, n: {"x": RNG.normal(-4, 1, (300, n)), "y": queries()}),
    "rt-detr, joined": ("detr", lambda size, n: {"output0": table(queries(), n)}),
    "rt-detr of 100, joined": ("detr", lambda size, n: {"output0": table(queries(100), n)}),
    "ssd": (
        "ssd_raw",
        lambda size, n: {"scores": softmax(with_background(1917, n)), "boxes": corners(queries(1917))},
    ),
    "ssd of few priors": (
        "ssd_raw",
        lambda size, n: {"scores": with_background(100, n), "boxes": np.cumsum(queries(100), axis=1) / 3},
    ),
    "ssd, offsets": (
        "ssd_raw",
        lambda size, n: {"scores": softmax(with_background(1917, n)), "boxes": RNG.normal(0, 1.5, (1917, 4))},
    ),
    "yolov4": (
        "",
        lambda size, n: {"boxes": RNG.random((3 * count(size), 1, 4)), "confs": likely(3 * count(size), n)},
    ),
    "retinaface": (
        "",
        lambda size, n: {"a": RNG.normal(0, 1, (4200, 4)), "b": with_background(4200, 1), "c": queries(4200)},
    ),
    "a segmentation": ("", lambda size, n: {"output": RNG.normal(0, 1, (max(n, 2), size[1] // 4, 9))}),
    "tokens": ("", lambda size, n: {"hidden": RNG.normal(0, 1, (197, 768))}),
    "an embedding": ("", lambda size, n: {"output": RNG.normal(0, 1, 512)}),
}


def signature(
    outputs: Outputs, size: tuple[int, int], dtype: str = "float32", batch: int | str | None = 1, **meta: str
) -> Signature:
    samples = {name: np.asarray(values, dtype)[None] for name, values in outputs.items()}
    return Signature(
        (TensorInfo("images", dtype, (batch, 3, size[1], size[0])),),
        tuple(TensorInfo(name, dtype, (batch, *values.shape[1:])) for name, values in samples.items()),
        meta,
        samples,
    )


def taken_for(given: Signature) -> str:
    """The family that a user gets without a card; empty where the user is asked, and told the candidates."""
    verdict = judge(given, {}, "m")
    if verdict.chosen is not None:
        return verdict.chosen.family
    with pytest.raises(ModelError) as caught:
        describe(given, name="m", sha256="", card={}, provider="")
    for guess in verdict.candidates:
        assert f"  {guess.family} {guess.confidence:.0%}: " in caught.value.message
    assert caught.value.hint
    return ""


@pytest.mark.parametrize("name", MADE)
def test_the_right_family_or_none(name: str) -> None:
    family, make = MADE[name]
    settled = 0
    for size, classes in product(SIZES, CLASSES):
        outputs = make(size, classes)
        for given in (
            signature(outputs, size),
            signature(dict(reversed(outputs.items())), size, batch="N"),
            signature(outputs, size, "float16", None),
        ):
            said = taken_for(given)
            assert said in ("", family), (size, classes)
            settled += said != ""
    # Who always asks is never wrong: at least the usual 80 classes are to be known, but for SSDs with priors.
    assert family in ("", "ssd_raw") or settled >= len(SIZES)


def logits(values: Array) -> Signature:
    return signature({"logits": values, "pred_boxes": queries(len(values))}, (640, 640))


def test_one_class_leaves_no_column_for_no_object() -> None:
    spec, _ = describe(logits(RNG.normal(-5, 1, (300, 1))), name="m", sha256="", card={}, provider="")
    assert spec.options == {"scores": "sigmoid", "no_object": False}
    assert len(spec.labels) == 1


def test_a_last_class_that_wins_at_low_logits_may_be_a_class_or_no_object() -> None:
    both = RNG.normal((-7, -4), 0.3, (300, 2))
    assert taken_for(logits(both)) == ""
    spec, _ = describe(logits(both + np.array([0, 9])), name="m", sha256="", card={}, provider="")
    assert spec.options == {"scores": "softmax", "no_object": True}


def test_the_metadata_of_an_rt_detr_are_none_of_yolov10() -> None:
    """Without a test picture six columns are as well two classes."""
    seen = signature(
        {"output0": table(queries(), 2)},
        (640, 640),
        description="Ultralytics rtdetr-l model",
        names="{0: 'a', 1: 'b'}",
        **ULTRALYTICS,
    )
    assert taken_for(seen) == "detr"
    unseen = Signature(seen.inputs, seen.outputs, seen.metadata)
    assert taken_for(unseen) == ""
