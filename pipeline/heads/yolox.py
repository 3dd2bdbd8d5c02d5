"""YOLOX: the raw grid head, as Megvii-BaseDetection/YOLOX exports it without ``--decode_in_inference``.

One output (1, n, 5 + classes): ``x, y, w, h, objectness, classes``, cells row by row at strides 8, 16
and 32. Centre = (xy + cell) * stride, size = exp(wh) * stride; objectness and classes have passed their
sigmoid, score = objectness * class. Input: BGR 0..255, letterboxed at the top left, padded with 114; NMS
0.65. Exports with ``--decode_in_inference`` have the same shape and are read by ``yolov5``: only values tell
the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._yolo import sample_of, units_of, yolox_input
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    as_frame,
    best_classes,
    check_probabilities,
    grid_counts,
    grid_points,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["YoloxHead"]

_STRIDES = (8, 16, 32)
#: exp(12) * 8 is over a million pixels: the columns hold sizes in pixels, not their logarithms.
_MAX_LOG_SIZE = 12.0
_COCO = 80


class YoloxHead:
    """Decoder of raw YOLOX outputs; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) != 1:
            raise ModelError(
                f"model {spec.name!r} gives {len(outputs)} outputs, the yolox head expects 1",
                hint="framewire models inspect FILE shows which families fit",
            )
        points, strides = grid_points(spec.input_width, spec.input_height, _STRIDES, 0.0)
        name = spec.output_names[0] if spec.output_names else "0"
        raw = as_frame(outputs[0], name, (len(points), None), spec)
        if raw.shape[1] < 6:
            raise ModelError(
                f"output {name!r} of model {spec.name!r} has {raw.shape[1]} columns, yolox needs 5 + classes",
                hint="name the right family for this file",
            )
        objectness = raw[:, 4]
        check_probabilities(objectness, "objectness values", spec)
        # A class is at most 1, so an object under the confidence cannot reach it.
        likely = np.flatnonzero(objectness >= confidence)
        rows = raw[likely]
        check_probabilities(rows[:, 5:], "class scores", spec)
        if len(rows) == 0:
            return Detections.empty()
        keep, scores, class_ids = best_classes(rows[:, 5:] * rows[:, 4:5], confidence)
        rows, likely = rows[keep], likely[keep]
        largest = float(np.max(rows[:, 2:4], initial=0.0))
        if largest > _MAX_LOG_SIZE:
            raise ModelError(
                f"output {name!r} of model {spec.name!r} holds box sizes up to {largest:.4g} "
                "where logarithms belong: its boxes are decoded already (as in YOLOv5 exports)",
                hint='write {"family": "yolov5"} in its card',
            )
        centres = rows[:, :2] * strides[likely] + points[likely]
        half = np.exp(rows[:, 2:4]) * (strides[likely] * np.float32(0.5))
        return top_detections(np.hstack([centres - half, centres + half]), scores, class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """One float output (batch, n, 5 + classes) with n the cells of strides 8, 16 and 32."""
        picture = image_input(signature)
        if picture is None or len(signature.outputs) != 1:
            return None
        output = signature.outputs[0]
        if len(output.shape) != 3 or output.dtype not in ("float32", "float16"):
            return None
        cells = sum(grid_counts(picture.width, picture.height, _STRIDES))
        columns = output.shape[2]
        whole = picture.width % 32 == 0 and picture.height % 32 == 0
        if not whole or output.shape[1] != cells or not isinstance(columns, int) or columns < 6:
            return None
        classes = columns - 5
        values = sample_of(signature, output)
        units = units_of(None if values is None else values[:, :4], picture)
        if units in ("pixels", "shares"):
            return None
        why = (
            f"one output of {cells} rows, the cells of strides 8, 16, 32 of "
            f"{picture.width}x{picture.height}, with 5 + {classes} columns"
        )
        official = (
            signature.inputs[0].name == "images" and output.name == "output" and picture.layout == "nchw"
        )
        if units == "raw":
            confidence = 0.95 if official else 0.85
            why += "; a test picture gives offsets and logarithms, not boxes"
        else:
            # Decoded, and without objectness, the shape is the same.
            confidence = 0.7 if official else 0.3 if classes + 1 == _COCO else 0.55
        overrides = yolox_input(picture) | {"output_names": (output.name,), "nms_iou": 0.65}
        return Guess("yolox", overrides, confidence, why, classes)
