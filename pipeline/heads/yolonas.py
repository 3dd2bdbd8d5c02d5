"""YOLO-NAS as Deci-AI/super-gradients exports it: undecided tables, finished rows, or finished tensors.

*Table* (``export(preprocessing=None, postprocessing=None)``): boxes (1, n, 4) ``x1, y1, x2, y2`` in pixels of
the input and class probabilities (1, n, classes), n the cells of strides 8, 16 and 32 (8400 at 640x640). The
best class of a place counts.

*Flat* (``FLAT_FORMAT``): one output (n, 7) of rows ``batch, x1, y1, x2, y2, score, class``, n as many as NMS
within the graph leaves.

*Batch* (``BATCH_FORMAT``, the default): numbers of detections (1, 1), boxes (1, m, 4) in pixels of the input,
scores (1, m) and class ids (1, m); what lies behind the number is -1.

Input: RGB, letterboxed in the middle, padded with 114; uint8 where the graph divides by 255 (the default),
else 0..1; NMS 0.7 (super-gradients, ``default_yolo_nas_coco_processing_params``; it leaves two pixels more
on each side of a 640 input, 636 in 640, which is not done here).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads._yolo import FLOATS, cells_of, class_column, name_of, one_output, rgb_input, sample_of
from pipeline.heads.base import (
    TOP_K,
    Guess,
    InputFormat,
    Signature,
    TensorInfo,
    as_frame,
    as_ids,
    best_classes,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["YolonasHead"]

_IOU = 0.7
_MAX_ROWS = 1000
_COCO = 80
#: What the names of the four outputs end in, in the order in which the head reads them.
_BATCH = ("num_predictions", "pred_boxes", "pred_scores", "pred_classes")


class YolonasHead:
    """Decoder of the three layouts; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 1:
            rows = one_output(outputs, (None, 7), spec)
            check_probabilities(rows[:, 5], "scores", spec)
            rows = rows[(rows[:, 5] >= confidence) & (rows[:, 5] > 0)]
            class_ids = class_column(rows[:, 6], spec)
            return top_detections(rows[:, 1:5], rows[:, 5], class_ids, spec, limit)
        if len(outputs) == 2:
            boxes = as_frame(outputs[0], name_of(spec, 0), (None, 4), spec)
            scores = as_frame(outputs[1], name_of(spec, 1), (len(boxes), None), spec)
            if scores.size == 0:
                return Detections.empty()
            check_probabilities(scores, "scores", spec)
            keep, best, ids = best_classes(scores, confidence)
            return top_detections(boxes[keep], best, ids, spec, limit)
        if len(outputs) == 4:
            return _decode_batch(outputs, spec, confidence, limit)
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the yolonas head expects 1, 2 or 4",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """One of the three layouts, with a picture as channels, rows, columns."""
        picture = image_input(signature)
        if picture is None or picture.layout != "nchw":
            return None
        if len(signature.outputs) == 1:
            return _guess_flat(signature, picture)
        if len(signature.outputs) == 2:
            return _guess_table(signature, picture)
        return _guess_batch(signature, picture) if len(signature.outputs) == 4 else None


def _decode_batch(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    number = as_ids(outputs[0], name_of(spec, 0), (1,), spec)
    boxes = as_frame(outputs[1], name_of(spec, 1), (None, 4), spec)
    scores = as_frame(outputs[2], name_of(spec, 2), (len(boxes),), spec)
    class_ids = as_ids(outputs[3], name_of(spec, 3), (len(boxes),), spec)
    count = int(number[0])
    if not 0 <= count <= len(boxes):
        raise ModelError(
            f"model {spec.name!r} says that it found {count} objects among {len(boxes)} rows",
            hint="name its outputs in this order: numbers, boxes, scores, classes",
        )
    boxes, scores, class_ids = boxes[:count], scores[:count], class_ids[:count]
    check_probabilities(scores, "scores", spec)
    keep = (scores >= confidence) & (scores > 0)
    if bool((class_ids[keep] < 0).any()):
        raise ModelError(f"model {spec.name!r} gives class ids below 0", hint="name the right family")
    return top_detections(boxes[keep], scores[keep], class_ids[keep], spec, limit)


def _classes(signature: Signature) -> int:
    return len(names_in(signature.metadata)) or _COCO


def _guess_flat(signature: Signature, picture: InputFormat) -> Guess | None:
    output = signature.outputs[0]
    if len(output.shape) != 2 or output.shape[1] != 7 or output.dtype not in FLOATS:
        return None
    values = sample_of(signature, output)
    named = "flat_predictions" in output.name
    told = values is not None and _flat_fits(values)
    if values is not None and not told:
        return None
    overrides = rgb_input(picture) | {
        "output_names": (output.name,),
        "nms_iou": None,
        "max_rows": _MAX_ROWS,
    }
    why = "one output of rows of 7, NMS in the graph: batch, box, score and class, as YOLO-NAS' flat format"
    why += "; those of a test picture fit" if told else ""
    confidence = 0.95 if named else 0.8 if told else 0.6 if picture.dtype == "uint8" else 0.3
    return Guess("yolonas", overrides, confidence, why, _classes(signature))


def _flat_fits(rows: NDArray[np.float32]) -> bool:
    scores, ids = rows[:, 5], rows[:, 6]
    whole = bool((np.abs(ids - np.rint(ids)) < 1e-3).all()) and float(ids.min()) >= 0
    return whole and 0 <= float(scores.min()) <= float(scores.max()) <= 1.001


def _guess_table(signature: Signature, picture: InputFormat) -> Guess | None:
    tables = [one for one in signature.outputs if len(one.shape) == 3 and one.dtype in FLOATS]
    if len(tables) != 2 or len(signature.inputs) != 1:
        return None
    boxes, scores = sorted(tables, key=lambda one: one.shape[2] != 4)
    places, classes = boxes.shape[1], scores.shape[2]
    strides = cells_of(picture).get(places, ()) if isinstance(places, int) else ()
    if boxes.shape[2] != 4 or scores.shape[1] != places or strides != (8, 16, 32):
        return None
    if not isinstance(classes, int) or classes < 1:
        return None
    told = _table_fits(signature, boxes, scores, picture)
    if told is False:
        return None
    overrides = rgb_input(picture) | {"output_names": (boxes.name, scores.name), "nms_iou": _IOU}
    why = f"boxes and {classes} scores of {places} cells, those of strides 8, 16 and 32"
    why += ", boxes in pixels and probabilities for a test picture" if told else ""
    why += "; as YOLO-NAS without its NMS (PP-YOLOE can look the same and wants another input)"
    return Guess("yolonas", overrides, 0.7 if told else 0.5, why, classes)


def _table_fits(
    signature: Signature, boxes: TensorInfo, scores: TensorInfo, picture: InputFormat
) -> bool | None:
    """Whether a test picture gave corners in pixels and probabilities; None without one."""
    corners, values = sample_of(signature, boxes), sample_of(signature, scores)
    if corners is None or values is None:
        return None
    ordered = bool((corners[:, 2:] >= corners[:, :2] - 1e-3).mean() > 0.9)
    far = float(corners[:, 2].max()) > picture.width / 2
    return ordered and far and 0 <= float(values.min()) <= float(values.max()) <= 1.001


def _guess_batch(signature: Signature, picture: InputFormat) -> Guess | None:
    by_end = {end: one for end in _BATCH for one in signature.outputs if one.name.endswith(end)}
    if len(by_end) != 4 or len(by_end["pred_boxes"].shape) != 3:
        return None
    overrides = rgb_input(picture) | {
        "output_names": tuple(by_end[end].name for end in _BATCH),
        "nms_iou": None,
    }
    why = "numbers, boxes, scores and classes, NMS in the graph, named as YOLO-NAS' batch format"
    return Guess("yolonas", overrides, 0.95, why, _classes(signature))
