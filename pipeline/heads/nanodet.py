"""NanoDet and NanoDet-Plus (RangiLyu/nanodet): class scores and distances of the sides, in three layouts.

*Decoded* (the embedded default): ``boxes`` (1, n, 4) xyxy in input pixels and ``scores`` (1, n, classes)
after their sigmoid; the distances are integrated, and the pixels normalised, inside the graph.

*Raw* (NanoDet-m): per stride 8, 16, 32 class scores (1, cells, classes) after their sigmoid and distances
(1, cells, 4 x bins) as logits, all the class outputs first; see `pipeline.heads._distances`. The reference
points are the centres of the cells.

*Plus*: one output (1, n, classes + 4 x bins) for strides 8, 16, 32, 64, scores after their sigmoid, then
distances as logits. The reference points are the corners of the cells, as
``NanoDetPlusHead.get_single_level_center_priors`` has them.

A place gives every class that reaches the confidence, as in the reference code: at a confidence of 0.05
that is worth 1.5 to 2 points of AP over the best class alone; at 0.4 the two hardly differ.

Options of the spec: ``bins`` of a side in the *plus* layout (8, published as ``reg_max: 7``), and
``offset`` of the reference point in its cell, 0 (corner) to 0.5 (centre), where it is not the layout's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._distances import STRIDES, decode_levels, levels_of, sides_of
from pipeline.heads.base import (
    TOP_K,
    Guess,
    InputFormat,
    Signature,
    all_classes,
    as_frame,
    check_probabilities,
    grid_counts,
    grid_points,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["NanodetHead"]

_BINS = 8
_CORNER, _CENTRE = 0.0, 0.5
_NORMALISED: dict[str, Any] = {
    "channels": "bgr",
    "mean": (103.53, 116.28, 123.675),
    "std": (57.375, 57.12, 58.395),
    "pad_value": 0,
}
#: Raw NanoDet-m as published (``keep_ratio: True``, NMS 0.6): BGR, aspect kept, in the middle of black.
#: On the 60 pictures of `scripts/check_accuracy` the top left did 0.016 better, which may be chance.
_RAW_INPUT = _NORMALISED | {"letterbox": "center", "nms_iou": 0.6}
#: As published: ``keep_ratio: False`` in the configurations of NanoDet-Plus, NMS 0.6 in its head.
_PLUS_INPUT = _NORMALISED | {"letterbox": "stretch", "nms_iou": 0.6}


class NanodetHead:
    """Decoder of the three layouts; see the module. The number of outputs tells them apart."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 1:
            return _decode_plus(outputs[0], spec, confidence, limit)
        if len(outputs) == 2:
            return _decode_finished(outputs, spec, confidence, limit)
        if len(outputs) in (6, 8):
            return decode_levels(outputs, spec, confidence, limit, _offset_of(spec, _CENTRE))
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the nanodet head expects 1, 2, 6 or 8",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """Cells of strides 8, 16, 32 (and 64), their scores and distances in one of the layouts."""
        picture = image_input(signature)
        if picture is None or len(signature.inputs) != 1:
            return None
        if any(o.dtype not in ("float32", "float16") or len(o.shape) != 3 for o in signature.outputs):
            return None
        if len(signature.outputs) == 2:
            return _recognise_finished(signature, picture)
        if picture.layout != "nchw" or picture.dtype == "uint8":
            return None
        if len(signature.outputs) == 1:
            return _recognise_plus(signature, picture)
        return _recognise_raw(signature, picture)


def _offset_of(spec: ModelSpec, usual: float) -> float:
    value = spec.options.get("offset", usual)
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ModelError(
            f"the option offset of model {spec.name!r} is {value!r}, not a number from 0 to 1",
            hint="0 is the corner of a cell, 0.5 its centre",
        )
    return float(value)


def _decode_plus(output: NDArray[Any], spec: ModelSpec, confidence: float, limit: int) -> Detections:
    bins = spec.options.get("bins", _BINS)
    if not isinstance(bins, int) or bins < 2:
        raise ModelError(
            f"the option bins of model {spec.name!r} is {bins!r}, not a whole number over 1",
            hint='it is reg_max + 1: {"bins": 8}',
        )
    offset = _offset_of(spec, _CORNER)
    points, sizes = grid_points(spec.input_width, spec.input_height, STRIDES, offset)
    name = spec.output_names[0] if spec.output_names else "0"
    raw = as_frame(output, name, (len(points), None), spec)
    classes = raw.shape[1] - 4 * bins
    if classes < 1:
        raise ModelError(
            f"output {name!r} of model {spec.name!r} has {raw.shape[1]} columns, "
            f"NanoDet-Plus needs classes + 4 x {bins}",
            hint='say the bins of a side in a card: {"options": {"bins": 8}}',
        )
    check_probabilities(raw[:, :classes], "scores", spec)
    rows, scores, class_ids = all_classes(raw[:, :classes], confidence)
    sides = sides_of(raw[rows, classes:]) * sizes[rows]
    boxes = np.hstack([points[rows] - sides[:, :2], points[rows] + sides[:, 2:]])
    return top_detections(boxes, scores, class_ids, spec, limit)


def _decode_finished(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    by_name = dict(zip(spec.output_names or ("boxes", "scores"), outputs, strict=False))
    if set(by_name) != {"boxes", "scores"}:
        raise ModelError(
            f"outputs of model {spec.name!r} are {sorted(by_name)}, the nanodet head wants boxes and scores",
            hint="framewire models inspect FILE shows which families fit",
        )
    boxes = as_frame(by_name["boxes"], "boxes", (None, 4), spec)
    scores = as_frame(by_name["scores"], "scores", (len(boxes), None), spec)
    check_probabilities(scores, "scores", spec)
    rows, best, class_ids = all_classes(scores, confidence)
    return top_detections(boxes[rows], best, class_ids, spec, limit)


def _recognise_finished(signature: Signature, picture: InputFormat) -> Guess | None:
    outputs = {output.name: output.shape for output in signature.outputs}
    if set(outputs) != {"boxes", "scores"} or (picture.layout, picture.dtype) != ("nhwc", "uint8"):
        return None
    cells = sum(grid_counts(picture.width, picture.height, STRIDES[:3]))
    if outputs["boxes"][1:] != (cells, 4) or outputs["scores"][1] != cells:
        return None
    overrides = picture.overrides() | {
        "channels": "bgr",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "letterbox": "center",
        "pad_value": 114,
        "output_names": ("boxes", "scores"),
        "nms_iou": 0.5,
    }
    why = f"uint8 pixels in; boxes and scores of {cells} cells, those of strides 8, 16 and 32, out"
    classes = outputs["scores"][2]
    return Guess("nanodet", overrides, 0.95, why, classes if isinstance(classes, int) else 0)


def _recognise_raw(signature: Signature, picture: InputFormat) -> Guess | None:
    levels = levels_of(signature, picture)
    if levels is None:
        return None
    names, bins, classes = levels
    overrides = picture.overrides() | {"output_names": names}
    what = f"class scores and {bins}-bin distances at strides 8 to {STRIDES[len(names) // 2 - 1]}"
    if len(names) == 6:
        return Guess("nanodet", overrides | _RAW_INPUT, 0.85, f"{what}: raw NanoDet-m", classes)
    if all("pred_stride" in name for name in names):
        # Four strides came with NanoDet-Plus; its own export has one output, so this one is somebody's own.
        overrides |= _PLUS_INPUT | {"options": {"offset": _CORNER}}
        return Guess("nanodet", overrides, 0.65, f"{what}, named as NanoDet-Plus names them", classes)
    return None


def _recognise_plus(signature: Signature, picture: InputFormat) -> Guess | None:
    output = signature.outputs[0]
    cells = sum(grid_counts(picture.width, picture.height, STRIDES))
    columns = output.shape[2]
    if output.shape[1] != cells or not isinstance(columns, int) or columns <= 4 * _BINS:
        return None
    classes = columns - 4 * _BINS
    sample = signature.samples.get(output.name)
    confidence = 0.8
    if sample is not None:
        scores = sample[..., :classes]
        if sample.shape[-1] != columns or not (float(scores.min()) >= 0 and float(scores.max()) <= 1):
            return None
        confidence = 0.9
    overrides = picture.overrides() | _PLUS_INPUT | {"output_names": (output.name,)}
    why = (
        f"one output of {cells} rows, the cells of strides 8 to 64 of {picture.width}x{picture.height}, "
        f"with {classes} scores and {_BINS}-bin distances: NanoDet-Plus"
    )
    return Guess("nanodet", overrides, confidence, why, classes)
