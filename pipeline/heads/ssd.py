"""SSD with its NMS inside the graph, and what shares its outputs; boxes are shares of the input.

*TensorFlow* (Object Detection API: SSD, EfficientDet, Faster R-CNN, CenterNet; TFLite's
``TFLite_Detection_PostProcess``): boxes (1, n, 4) ``y1, x1, y2, x2``, class ids (1, n) as floats, scores
(1, n) and how many rows are objects (1,). Class ids count from 1, in TFLite from 0. The outputs may come in
any order; rows beyond the count are not looked at. Input: RGB 0..255, stretched; a TFLite model that takes
floats wants them from -1 to 1.

*PyTorch* (ssd-resnet34 of MLPerf, ``ssd-12`` of the ONNX model zoo): boxes (1, n, 4) ``x1, y1, x2, y2``,
class ids (1, n) as integers, 0 for the background, and scores (1, n); n differs from picture to picture.
Input: RGB, stretched, with ImageNet's mean and std.

Neither says how many classes it has. Where the metadata name none they are COCO's: ids 1 to 90 with gaps for
TensorFlow (the number of classes follows from ``detection_multiclass_scores`` where that is there), and 80
without gaps after the background for PyTorch. A model trained on classes of one's own needs a card with
``labels``.

Options of the spec:

- ``corners``: ``yxyx`` (the default) or ``xyxy``, the order within a box;
- ``first_class``: the id by which the graph calls the first label (0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._options import first_class_of, one_of
from pipeline.heads._rows import Rows, labels_from, pair, rows_of, sample_of, select
from pipeline.heads.base import TOP_K, Guess, InputFormat, Signature, TensorInfo, image_input
from pipeline.messages import Detections, ModelSpec

__all__ = ["SsdHead"]

_CORNERS = ("yxyx", "xyxy")
#: Boxes may reach beyond the input, but not so far: these are pixels.
_FARTHEST = 4.0
_FLOATS = ("float32", "float16")
_INTEGERS = ("int32", "int64")
#: Capacity where the number of rows depends on the picture: ssd-resnet34 keeps 200.
_MAX_ROWS = 300
_COCO_IDS, _COCO_AND_BACKGROUND = 90, 81
_STRETCHED: dict[str, Any] = {"channels": "rgb", "letterbox": "stretch", "nms_iou": None}
_IMAGENET: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
_SIGNED: dict[str, Any] = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
_PARTS = ("boxes", "classes", "scores", "count")
#: Names of the parts, in the order of `_PARTS`, after the path and before ``:0``.
_TENSORFLOW = ("detection_boxes", "detection_classes", "detection_scores", "num_detections")
_TFLITE = tuple(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3"))
_PYTORCH = ("bboxes", "labels", "scores")


class SsdHead:
    """Decoder of the two layouts; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        corners = one_of(spec, "corners", _CORNERS)
        found = rows_of(outputs, spec)
        farthest = float(np.abs(found.boxes).max(initial=0.0))
        if farthest > _FARTHEST:
            raise ModelError(
                f"boxes of model {spec.name!r} reach {farthest:.4g}, "
                "where shares of the input belong, 0 to 1",
                hint='boxes in pixels are those of the family rcnn: {"family": "rcnn"} in its card',
            )
        boxes = found.boxes[:, [1, 0, 3, 2]] if corners == "yxyx" else found.boxes
        size = np.array([spec.input_width, spec.input_height] * 2, np.float32)
        rows = Rows(boxes * size, found.scores, found.class_ids)
        return select(rows, spec, confidence, limit, first_class_of(spec))

    def recognise(self, signature: Signature) -> Guess | None:
        """Boxes, class ids and scores of the same rows, as shares of the input, with or without a count."""
        picture = image_input(signature)
        if picture is None or len(signature.inputs) != 1:
            return None
        return (
            _named(signature, picture, _TFLITE, "TFLite's post-processing", first_class=0)
            or _named(signature, picture, _TENSORFLOW, "TensorFlow's Object Detection API", first_class=1)
            or _unnamed(signature, picture)
        )


def _named(
    signature: Signature, picture: InputFormat, names: Sequence[str], whose: str, first_class: int
) -> Guess | None:
    """The four parts by the names that TensorFlow gives them."""
    by_name = {_plain(info.name): info for info in signature.outputs}
    parts = [by_name.get(_plain(name)) for name in names]
    found = [info for info in parts if info is not None]
    if len(found) != len(names) or len(found[0].shape) != 3 or found[0].shape[2] != 4:
        return None
    scores = by_name.get("detection_multiclass_scores")
    columns = scores.shape[2] if scores is not None and len(scores.shape) == 3 else None
    # The first column is the background, which detection_classes never names.
    usual = columns - 1 if isinstance(columns, int) and columns > 1 else _COCO_IDS
    tflite = names is _TFLITE
    return _guess(signature, picture, found, 0.95, f"named as of {whose}", usual, first_class, signed=tflite)


def _plain(name: str) -> str:
    """A name without the path before it and the ``:0`` behind."""
    return re.sub(r":0$", "", name.rpartition("/")[2])


def _unnamed(signature: Signature, picture: InputFormat) -> Guess | None:
    boxes = [o for o in signature.outputs if len(o.shape) == 3 and o.shape[2] == 4 and o.dtype in _FLOATS]
    flat = [o for o in signature.outputs if len(o.shape) == 2]
    counts = [o for o in signature.outputs if len(o.shape) == 1]
    if len(boxes) != 1 or len(flat) != 2 or len(counts) != len(signature.outputs) - 3 or len(counts) > 1:
        return None
    shares = sample_of(signature, boxes[0], 4)
    if shares is not None and (shares.min() < -1 or shares.max() > 2):
        return None  # pixels: the family rcnn
    ids, scores, sure = pair(*flat)
    if scores.dtype not in _FLOATS:
        return None
    if ids.dtype in _INTEGERS:
        return None if counts else _pytorch(signature, picture, boxes[0], ids, scores, shares is not None)
    if not sure:
        ids, scores, sure = _by_values(signature, ids, scores)
    confidence = 0.65 if sure and shares is not None and counts else 0.4
    found = [boxes[0], ids, scores, *counts]
    seen = sample_of(signature, ids, 1)
    first_class = int(seen is not None and not counts and float(seen.min()) >= 1)
    why = "like TFLite's post-processing, under other names"
    return _guess(signature, picture, found, confidence, why, _COCO_IDS, first_class, signed=True)


def _by_values(
    signature: Signature, one: TensorInfo, other: TensorInfo
) -> tuple[TensorInfo, TensorInfo, bool]:
    """Class ids and scores, told apart by what the test picture gave: only ids go beyond 1."""
    values = [sample_of(signature, info, 1) for info in (one, other)]
    beyond = [value is not None and float(value.max()) > 1 for value in values]
    if beyond == [False, True]:
        return other, one, True
    return one, other, beyond == [True, False]


def _pytorch(
    signature: Signature,
    picture: InputFormat,
    boxes: TensorInfo,
    ids: TensorInfo,
    scores: TensorInfo,
    measured: bool,
) -> Guess | None:
    if picture.layout != "nchw" or picture.dtype == "uint8":
        return None
    official = (boxes.name, ids.name, scores.name) == _PYTORCH
    labels = labels_from(signature.metadata, _COCO_AND_BACKGROUND, 0, background=True)
    overrides = picture.overrides() | _STRETCHED | _IMAGENET
    overrides |= {
        "output_names": (boxes.name, ids.name, scores.name),
        "options": {"corners": "xyxy", "first_class": labels.first_class},
        "max_rows": _MAX_ROWS,
    }
    why = "boxes as shares of the input, class ids and scores"
    why += ", named as in ssd-resnet34 of MLPerf" if official else ", as of PyTorch SSDs"
    why += "" if labels.names else "; the labels of COCO taken, for the file names none"
    confidence = 0.9 if official else 0.7 if measured else 0.4
    return Guess("ssd", overrides, confidence, why, labels.classes, labels.names)


def _guess(
    signature: Signature,
    picture: InputFormat,
    found: Sequence[TensorInfo],
    confidence: float,
    whose: str,
    usual: int,
    first_class: int,
    *,
    signed: bool,
) -> Guess:
    labels = labels_from(signature.metadata, usual, first_class)
    overrides = picture.overrides() | _STRETCHED
    if signed and picture.dtype != "uint8":
        overrides |= _SIGNED
        confidence = min(confidence, 0.8)
    overrides |= {
        "output_names": tuple(info.name for info in found),
        "options": {"corners": "yxyx", "first_class": labels.first_class},
    }
    # TensorFlow fills up to a fixed number of rows; a graph that gave none for noise does not.
    sample = signature.samples.get(found[0].name)
    if len(found) < len(_PARTS) or (sample is not None and not sample.size):
        overrides["max_rows"] = _MAX_ROWS
    why = f"boxes as shares of the input, class ids, scores and their count, {whose}"
    why += "" if labels.names else "; the labels of COCO taken, for the file names none"
    return Guess("ssd", overrides, confidence, why, labels.classes, labels.names)
