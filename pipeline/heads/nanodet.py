"""NanoDet and PicoDet: class scores and distances of the four sides, in three layouts.

*Decoded* (the embedded default): ``boxes`` (1, n, 4) xyxy in input pixels and ``scores`` (1, n, classes)
after their sigmoid; the distances are integrated, and the pixels normalised, inside the graph.

*Raw* (RangiLyu/nanodet NanoDet-m, PaddleDetection PicoDet): per stride class scores (1, cells, classes)
after their sigmoid and distances (1, cells, 4 x bins) as logits, all the class outputs first. A
distance is the expectation of the softmax over its bins, times the stride; box = centre of the cell -/+
(left, top, right, bottom).

A place gives every class that reaches the confidence, as in the reference code: at a confidence of 0.05
that is worth 1.5 to 2 points of AP over the best class alone; at 0.4 the two hardly differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads.base import (
    Guess,
    InputFormat,
    Signature,
    TensorInfo,
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

_STRIDES = (8, 16, 32, 64)
# The inputs below did best with the real files on 60 COCO images (`scripts/check_heads_accuracy`), where
# differences of a point of AP are chance.
#: Raw NanoDet-m: BGR (RGB costs 2 to 4 points), aspect kept, at the top left (centring costs 1 to 2,
#: stretching 2 to 3), padded with black (with grey 114 the same within chance).
_NANODET_INPUT: dict[str, Any] = {
    "channels": "bgr",
    "mean": (103.53, 116.28, 123.675),
    "std": (57.375, 57.12, 58.395),
    "letterbox": "topleft",
    "pad_value": 0,
}
#: Raw PicoDet: RGB (BGR costs 2 to 3 points), stretched (letterboxing costs 3 to 4).
_PICODET_INPUT: dict[str, Any] = {
    "channels": "rgb",
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
    "letterbox": "stretch",
    "pad_value": 0,
}


class NanodetHead:
    """Decoder of the three layouts; see the module. Two outputs are the decoded one, more the raw ones."""

    nms_iou: float | None = 0.5

    def decode(self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 2:
            return _decode_finished(outputs, spec, confidence)
        if len(outputs) in (6, 8):
            return _decode_raw(outputs, spec, confidence)
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the nanodet head expects 2, 6 or 8",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """Cells of strides 8, 16, 32 (and 64) as ``boxes`` and ``scores``, or as a pair of outputs each."""
        picture = image_input(signature)
        if picture is None or any(
            len(output.shape) != 3 or output.dtype not in ("float32", "float16")
            for output in signature.outputs
        ):
            return None
        if len(signature.outputs) == 2:
            return _recognise_finished(signature, picture)
        if len(signature.outputs) in (6, 8) and picture.layout == "nchw" and picture.dtype != "uint8":
            return _recognise_raw(signature, picture)
        return None


def _decode_finished(outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float) -> Detections:
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
    return top_detections(boxes[rows], best, class_ids, spec)


def _decode_raw(outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float) -> Detections:
    levels = len(outputs) // 2
    strides = _STRIDES[:levels]
    names = spec.output_names or tuple(str(index) for index in range(len(outputs)))
    counts = grid_counts(spec.input_width, spec.input_height, strides)
    points, sizes = grid_points(spec.input_width, spec.input_height, strides, 0.5)
    boxes, scores, classes = [], [], []
    start = 0
    for level, cells in enumerate(counts):
        probabilities = as_frame(outputs[level], names[level], (cells, None), spec)
        check_probabilities(probabilities, f"scores {names[level]!r}", spec)
        logits = as_frame(outputs[levels + level], names[levels + level], (cells, None), spec)
        if logits.shape[1] < 8 or logits.shape[1] % 4:
            raise ModelError(
                f"output {names[levels + level]!r} of model {spec.name!r} has {logits.shape[1]} columns, "
                "not four sides of at least two bins",
                hint="name the class outputs first, then the distances, in the model's output order",
            )
        rows, best, class_ids = all_classes(probabilities, confidence)
        scores.append(best)
        classes.append(class_ids)
        sides = _expectation(logits[rows].reshape(len(rows), 4, logits.shape[1] // 4)) * sizes[start + rows]
        centres = points[start + rows]
        boxes.append(np.hstack([centres - sides[:, :2], centres + sides[:, 2:]]))
        start += cells
    return top_detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes), spec)


def _expectation(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean bin number under the softmax over the last axis: (n, 4, bins) to (n, 4)."""
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    bins = np.arange(logits.shape[2], dtype=np.float32)
    return np.asarray(weights @ bins / weights.sum(axis=2), np.float32)


def _recognise_finished(signature: Signature, picture: InputFormat) -> Guess | None:
    outputs = {output.name: output.shape for output in signature.outputs}
    if set(outputs) != {"boxes", "scores"} or (picture.layout, picture.dtype) != ("nhwc", "uint8"):
        return None
    cells = sum(grid_counts(picture.width, picture.height, _STRIDES[:3]))
    if outputs["boxes"][1:] != (cells, 4) or outputs["scores"][1] != cells:
        return None
    overrides = picture.overrides() | {
        "channels": "bgr",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "letterbox": "center",
        "pad_value": 114,
        "output_names": ("boxes", "scores"),
    }
    why = f"uint8 pixels in; boxes and scores of {cells} cells, those of strides 8, 16 and 32, out"
    return Guess("nanodet", overrides, 0.95, why)


def _recognise_raw(signature: Signature, picture: InputFormat) -> Guess | None:
    levels = len(signature.outputs) // 2
    counts = grid_counts(picture.width, picture.height, _STRIDES[:levels])
    split = _split_outputs(signature.outputs)
    if split is None:
        return None
    for half in split:
        if [output.shape[1] for output in half] != counts or len({output.shape[2] for output in half}) != 1:
            return None
    columns = split[1][0].shape[2]
    if not isinstance(columns, int) or columns < 8 or columns % 4:
        return None
    overrides = picture.overrides() | {
        **(_PICODET_INPUT if levels == 4 else _NANODET_INPUT),
        "output_names": tuple(output.name for half in split for output in half),
    }
    model = "PicoDet" if levels == 4 else "NanoDet-m"
    why = f"class scores and {columns // 4}-bin distances at strides 8 to {_STRIDES[levels - 1]}: raw {model}"
    return Guess("nanodet", overrides, 0.85, why)


def _split_outputs(outputs: Sequence[TensorInfo]) -> tuple[list[TensorInfo], list[TensorInfo]] | None:
    """Class outputs and distance outputs, each by falling number of cells."""
    if any(not isinstance(output.shape[1], int) for output in outputs):
        return None
    classes = [output for output in outputs if re.search(r"cls|class", output.name)]
    sides = [output for output in outputs if re.search(r"dis|reg", output.name)]
    half = len(outputs) // 2
    if len(classes) != half or len(sides) != half:
        # Names that say nothing, as Paddle's: classes first, unless only the first half has 8 bins a side.
        classes, sides = list(outputs[:half]), list(outputs[half:])
        if classes[0].shape[2] == 32 != sides[0].shape[2]:
            classes, sides = sides, classes

    def cells(output: TensorInfo) -> int:
        return -int(output.shape[1] or 0)

    return sorted(classes, key=cells), sorted(sides, key=cells)
