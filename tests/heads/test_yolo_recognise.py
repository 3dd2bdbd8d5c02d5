"""Which graphs the YOLO heads take, with and without what they gave for a test picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads.base import grid_points
from pipeline.messages import ModelSpec
from pipeline.models.describe import describe
from pipeline.vision.tensor import TensorFiller

Shape = tuple[int | str | None, ...]
Array = NDArray[Any]
RNG = np.random.default_rng(3)
RGB = {"channels": "rgb", "std": (255.0,) * 3, "letterbox": "center", "pad_value": 114}
YOLOX = {"channels": "bgr", "std": (1.0,) * 3, "letterbox": "topleft", "pad_value": 114, "nms_iou": 0.65}
NAMES = {"names": str({index: f"n{index}" for index in range(80)}), "stride": "32"}
ULTRALYTICS = NAMES | {"author": "Ultralytics", "task": "detect", "imgsz": "[640, 640]", "batch": "1"}


def signature(
    outputs: Mapping[str, Shape],
    samples: dict[str, Array] | None = None,
    meta: dict[str, str] | None = None,
    *,
    inputs: Mapping[str, Shape] | None = None,
    dtype: str = "float32",
) -> Signature:
    given = inputs or {"images": (1, 3, 640, 640)}
    return Signature(
        tuple(
            TensorInfo(name, dtype if len(shape) > 2 else "float32", shape) for name, shape in given.items()
        ),
        tuple(
            TensorInfo(name, "int64" if name.endswith(("classes", "predictions")) else "float32", shape)
            for name, shape in outputs.items()
        ),
        meta or {},
        samples or {},
    )


def decoded(n: int, columns: int, scale: float = 1.0, repeat: int = 1) -> Array:
    """Centres near their cells and sizes of some cells, in pixels over ``scale``; then probabilities."""
    points, strides = grid_points(640, 640, (8, 16, 32), 0.5)
    points, strides = np.tile(points, (repeat, 1))[:n], np.tile(strides, (repeat, 1))[:n]
    table = RNG.random((1, n, columns), np.float32) * np.float32(0.01)
    table[0, :, :2] = (points + RNG.normal(0, 2, points.shape)) / scale
    table[0, :, 2:4] = RNG.uniform(1, 5, (n, 2)) * strides / scale
    return table


def raw(n: int, columns: int) -> Array:
    table = RNG.random((1, n, columns), np.float32) * np.float32(0.01)
    table[0, :, :4] = RNG.normal(0.4, 0.8, (n, 4))
    return table


def finished(n: int = 300) -> Array:
    table = np.zeros((1, n, 6), np.float32)
    table[0, :, 2:4] = RNG.uniform(10, 600, (n, 2))
    table[0, :, 4] = np.sort(RNG.random(n) * 0.1)[::-1]
    table[0, :, 5] = RNG.integers(0, 80, n)
    return table


def with_ones(table: Array) -> Array:
    table[..., 4] = 1
    return table


def row7(score: int) -> Array:
    """Two rows of seven columns with the score at ``score`` and the class in the other of the last two."""
    rows = np.array([[0, 1, 2, 30, 40, 17, 17], [0, 1, 2, 30, 40, 3, 3]], np.float32)
    rows[:, score] = 0.6
    return rows


def turned(table: Array) -> Array:
    return np.ascontiguousarray(table.transpose(0, 2, 1))


OUT = {"output": (1, 8400, 85)}
GRIDS: dict[str, Shape] = {"a": (1, 255, 13, 13), "b": (1, 255, 26, 26), "c": (1, 255, 52, 52)}
ZOO: dict[str, Shape] = {
    "yolonms_layer_1/ExpandDims_1:0": (1, 10647, 4),
    "yolonms_layer_1/ExpandDims_3:0": (1, 80, 10647),
    "yolonms_layer_1/concat_2:0_classes": (7, 3),
}
ZOO_IN: dict[str, Shape] = {"input_1": (1, 3, 416, 416), "image_shape": (1, 2)}
AT_416: dict[str, Shape] = {"in": (1, 3, 416, 416)}
PROTOS: dict[str, Shape] = {"output1": (1, 32, 160, 160)}
BATCH: dict[str, Shape] = {
    "graph2_num_predictions": (1, 1),
    "graph2_pred_boxes": (1, 1000, 4),
    "graph2_pred_scores": (1, 1000),
    "graph2_pred_classes": (1, 1000),
}

#: Signature, family, what follows from it, classes.
KNOWN: dict[str, tuple[Signature, str, dict[str, Any], int]] = {
    "yolox, raw": (signature(OUT, {"output": raw(8400, 85)}), "yolox", YOLOX, 80),
    "yolox, small": (
        signature({"output": (1, 84, 85)}, inputs={"images": (1, 3, 64, 64)}), "yolox", YOLOX, 80
    ),
    "yolox with pixels last": (
        signature({"output": (1, 8400, 8)}, inputs={"images": (1, 640, 640, 3)}, dtype="uint8"),
        "yolox",
        YOLOX | {"input_layout": "nhwc"},
        3,
    ),
    "yolox, decoded": (
        signature(OUT, {"output": decoded(8400, 85)}),
        "yolov5",
        YOLOX | {"options": {}},
        80,
    ),
    "yolov6": (
        signature({"outputs": (1, 8400, 85)}, {"outputs": with_ones(decoded(8400, 85))}),
        "yolov5",
        RGB | {"nms_iou": 0.45},
        80,
    ),
    "yolov5": (signature({"output0": (1, 25200, 85)}, meta=NAMES), "yolov5", RGB | {"nms_iou": 0.45}, 80),
    "yolov5, seen": (
        signature({"output0": (1, 25200, 85)}, {"output0": decoded(25200, 85, repeat=3)}),
        "yolov5",
        RGB | {"options": {}},
        80,
    ),
    "yolov5 of tensorflow": (
        signature(
            {"Identity": (1, 25200, 85)},
            {"Identity": decoded(25200, 85, 640, 3)},
            inputs={"x": (1, 640, 640, 3)},
        ),
        "yolov5",
        RGB | {"options": {"normalized": True}, "input_layout": "nhwc"},
        80,
    ),
    "yolov5 p6": (
        signature({"output": (1, 102000, 8)}, inputs={"images": (1, 3, 1280, 1280)}), "yolov5", RGB, 3
    ),
    "yolov5 of old, with its maps": (
        signature(
            {
                "output": (1, 25200, 85),
                "339": (1, 3, 80, 80, 85),
                "391": (1, 3, 40, 40, 85),
                "443": (1, 3, 20, 20, 85),
            }
        ),
        "yolov5",
        RGB | {"output_names": ("output",)},
        80,
    ),
    "yolov5 seg": (
        signature({"output0": (1, 25200, 117), **PROTOS}),
        "yolov5",
        {"output_names": ("output0",), "options": {"classes": 80}},
        80,
    ),
    "yolov3-tiny of ultralytics": (
        signature({"output": (1, 2535, 85)}, inputs=AT_416), "yolov5", {"input_width": 416}, 80
    ),
    "yolov7 with a free batch": (
        signature({"output": ("batch", 25200, 6)}, inputs={"images": ("batch", 3, 640, 640)}),
        "yolov5",
        RGB,
        1,
    ),
    "yolov7 end to end": (
        signature({"output": ("n", 7)}), "yolov5", RGB | {"nms_iou": None, "max_rows": 1000}, 80
    ),
    "yolov7 end to end, seen": (
        signature({"output": ("n", 7)}, {"output": row7(6)}), "yolov5", {"max_rows": 1000}, 80
    ),
    "yolov8": (
        signature({"output0": (1, 84, 8400)}, meta=ULTRALYTICS),
        "yolov8",
        RGB | {"nms_iou": 0.45, "options": {}},
        80,
    ),
    "yolov9 without metadata": (signature({"output0": (1, 84, 8400)}), "yolov8", RGB, 80),
    "yolov8 of one class": (signature({"output0": (1, 5, 8400)}), "yolov8", RGB, 1),
    "yolov8 of two classes, seen": (
        signature({"output0": (1, 6, 8400)}, {"output0": turned(decoded(8400, 6))}), "yolov8", {}, 2
    ),
    "yolov8 transposed": (
        signature({"out": (1, 8400, 84)}, {"out": decoded(8400, 84)}),
        "yolov8",
        {"options": {"transposed": True}},
        80,
    ),
    "yolov8 of tensorflow": (
        signature(
            {"out": (1, 84, 8400)}, {"out": turned(decoded(8400, 84, 640))}, inputs={"x": (1, 640, 640, 3)}
        ),
        "yolov8",
        {"options": {"normalized": True}},
        80,
    ),
    "yolov8 seg": (
        signature({"output0": (1, 116, 8400), **PROTOS}, meta=ULTRALYTICS | {"task": "segment"}),
        "yolov8",
        {"output_names": ("output0",), "options": {"classes": 80}},
        80,
    ),
    "yolov8 seg without metadata": (
        signature({"output0": (1, 116, 8400), **PROTOS}), "yolov8", {"options": {"classes": 80}}, 80
    ),
    "yolov8 pose": (
        signature(
            {"output0": (1, 56, 8400)}, meta=ULTRALYTICS | {"task": "pose", "names": "{0: 'person'}"}
        ),
        "yolov8",
        {"options": {"classes": 1}},
        1,
    ),
    "yolo26 pose": (
        signature(
            {"output0": (1, 300, 57)}, meta=ULTRALYTICS | {"task": "pose", "names": "{0: 'person'}"}
        ),
        "yolov10",
        {"nms_iou": None},
        1,
    ),
    "yolov8 small enough to be square": (
        signature({"output0": (1, 84, 84)}, meta=ULTRALYTICS, inputs={"images": (1, 3, 64, 64)}),
        "yolov8",
        {"options": {}},
        80,
    ),
    "yolov10": (
        signature({"output0": (1, 300, 6)}, meta=ULTRALYTICS), "yolov10", RGB | {"nms_iou": None}, 80
    ),
    "yolov10 without metadata": (signature({"output0": (1, 300, 6)}), "yolov10", RGB, 80),
    "yolov10, seen": (signature({"output0": (1, 300, 6)}, {"output0": finished()}), "yolov10", RGB, 80),
    "yolo26 seg": (
        signature({"output0": (1, 300, 38), **PROTOS}, meta=ULTRALYTICS | {"task": "segment"}),
        "yolov10",
        {"output_names": ("output0",)},
        80,
    ),
    "yolov3 of the zoo": (
        signature(ZOO, inputs=ZOO_IN),
        "yolov3",
        RGB
        | {
            "pad_value": 128,
            "output_names": tuple(ZOO)[:2],
            "feeds": {"image_shape": (416.0, 416.0)},
            "nms_iou": 0.45,
            "max_rows": 0,
        },
        80,
    ),
    "yolov3, grids": (
        signature(GRIDS, inputs=AT_416), "yolov3", RGB | {"pad_value": 128, "output_names": tuple("abc")}, 80
    ),
    "yolov3-tiny, grids of keras": (
        signature(
            {"a": (1, 13, 13, 3, 85), "b": (1, 26, 26, 3, 85)}, inputs={"x": (1, 416, 416, 3)}
        ),
        "yolov3",
        {
            "options": {
                "anchors": [[[81, 82], [135, 169], [344, 319]], [[23, 27], [37, 58], [81, 82]]],
            }
        },
        80,
    ),
    "nas": (
        signature({"x": (1, 8400, 4), "y": (1, 8400, 80)}), "yolonas", RGB | {"nms_iou": 0.7}, 80
    ),
    "nas, scores first": (
        signature({"y": (1, 8400, 80), "x": (1, 8400, 4)}), "yolonas", {"output_names": ("x", "y")}, 80
    ),
    "nas flat": (
        signature({"graph2_flat_predictions_": ("n", 7)}, dtype="uint8"),
        "yolonas",
        {"std": (1.0,) * 3, "channels": "rgb", "max_rows": 1000, "nms_iou": None},
        80,
    ),
    "nas flat, seen": (
        signature({"out": ("n", 7)}, {"out": row7(5)}, dtype="uint8"), "yolonas", {"max_rows": 1000}, 80
    ),
    "nas batch": (
        signature(BATCH, dtype="uint8"),
        "yolonas",
        {"output_names": tuple(BATCH), "nms_iou": None, "input_dtype": "uint8"},
        80,
    ),
}  # fmt: skip


def best(given: Signature) -> Guess:
    return recognise(given)[0]


@pytest.mark.parametrize("name", KNOWN)
def test_known_layouts(name: str) -> None:
    given, family, fields, classes = KNOWN[name]
    guess = best(given)
    assert (guess.family, guess.classes) == (family, classes), guess.why
    plain = ModelSpec("m", "", family, ("a",), 1, 1)
    for field, value in fields.items():
        assert guess.overrides.get(field, getattr(plain, field)) == value, field
    # A user gets it without a card, and the tensor of its spec can be filled.
    spec, why = describe(given, name="m", sha256="", card={}, provider="")
    assert spec.family == family
    assert len(spec.labels) == classes
    assert why == guess.why
    TensorFiller(spec)


def test_metadata_of_ultralytics_make_it_certain() -> None:
    for name in ("yolov8", "yolov8 seg", "yolov8 pose", "yolov10", "yolo26 seg"):
        assert best(KNOWN[name][0]).confidence == 1.0, name
    for name in ("yolov9 without metadata", "yolov10 without metadata", "yolov5", "nas"):
        assert best(KNOWN[name][0]).confidence < 0.9, name


def test_what_only_samples_decide_is_said() -> None:
    for name, word in (
        ("yolox, raw", "offsets and logarithms"),
        ("yolox, decoded", "test picture"),
        ("yolov6", "objectness is 1"),
        ("yolov10, seen", "test picture"),
        ("yolov5 of tensorflow", "shares"),
        ("yolov7 end to end, seen", "test picture"),
        ("nas flat, seen", "test picture"),
        ("yolov8 seg", "masks are dropped"),
        ("yolov8 pose", "key points are dropped"),
    ):
        assert word in best(KNOWN[name][0]).why, name


def test_rotated_boxes_are_refused_in_words() -> None:
    given = signature({"output0": (1, 85, 8400)}, meta=ULTRALYTICS | {"task": "obb"})
    with pytest.raises(ModelError, match="rotated boxes") as caught:
        recognise(given)
    assert "detect" in caught.value.hint


def test_a_sample_without_a_spread_tells_nothing() -> None:
    """A graph that gives zeros for noise is judged by its shape."""
    given = signature(OUT, {"output": np.zeros((1, 8400, 85), np.float32)})
    assert (best(given).family, best(given).confidence) == ("yolox", 0.7)
    given = signature({"output0": (1, 300, 6)}, {"output0": np.zeros((1, 300, 6), np.float32)})
    assert best(given).confidence == 0.6


def test_samples_that_are_not_finite_are_passed_over() -> None:
    given = signature(OUT, {"output": np.full((1, 8400, 85), np.nan, np.float32)})
    assert best(given).family == "yolox"
