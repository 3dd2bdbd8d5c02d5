"""YOLOv8's table, boxes and classes without objectness: also YOLOv9, YOLO11, YOLO12, YOLOv5u and YOLOv3u.

One output (1, 4 + classes, n) or, transposed, (1, n, 4 + classes): ``cx, cy, w, h`` in pixels of the input
and a probability for each class; there is no objectness. n are the cells of strides 8, 16 and 32 (8400 at
640x640; with 64 for P6 models, with 4 for P2). The best class of a place counts.

Input: RGB 0..1, letterboxed in the middle, padded with 114; NMS 0.45 (ultralytics' example
``YOLOv8-OpenCV-ONNX-Python``; the default of its own predictor is 0.7).

Of segmentation and pose models (further columns for mask coefficients or key points, and mask prototypes in
a second output) the boxes are read, the rest is dropped. Rotated boxes (``obb``) are refused.

Options: ``transposed`` (the output is (1, n, 4 + classes)), ``normalized`` (the boxes are shares of the
input, as exports from TensorFlow have them), ``classes`` (columns after them are dropped).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads._yolo import (
    boxes_of,
    cells_of,
    class_count,
    name_of,
    one_output,
    rgb_input,
    sample_of,
    table_of,
    task_of,
    units_of,
)
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["Yolov8Head"]

_IOU = 0.45
_COCO = 80
_STRIDES = (8, 16, 32)


class Yolov8Head:
    """Decoder of the table, either way round; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        table = one_output(outputs, (None, None), spec)
        if spec.options.get("transposed"):
            table = table.T
        if table.shape[0] < 5:
            raise ModelError(
                f"output {name_of(spec, 0)!r} of model {spec.name!r} has {table.shape[0]} values a place, "
                "yolov8 needs 4 + classes",
                hint='name the right family for this file, or write {"options": {"transposed": true}} in its '
                "card when the places come first",
            )
        scores = table[4 : 4 + class_count(spec, table.shape[0] - 4)]
        check_probabilities(scores, "class scores", spec)
        best = scores.max(axis=0)
        # argmax over a few places only: over all of them it would cost more than the rest of the head.
        places = np.flatnonzero(best >= confidence)
        boxes = boxes_of(table[:4, places].T, spec)
        return top_detections(boxes, best[places], scores[:, places].argmax(axis=0), spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """One table of the cells of known strides with at least five values each.

        Raises:
            ModelError: the file says that its boxes are rotated.
        """
        picture = image_input(signature)
        found = table_of(signature)
        task = task_of(signature.metadata)
        if picture is None or found is None or task not in ("", "detect", "segment", "pose", "obb"):
            return None
        output, masks = found
        first, second = (size if isinstance(size, int) else 0 for size in output.shape[1:])
        cells = cells_of(picture)
        names = names_in(signature.metadata)
        # With a fourth stride raw NanoDet-Plus has the transposed shape.
        turned = first in cells and (bool(task or names) or cells[first] == _STRIDES)
        transposed = turned and second not in cells
        places, values = (first, second) if transposed else (second, first)
        if places not in cells:
            return None
        if task == "obb":
            raise ModelError(
                "the file says that it finds rotated boxes (task obb), which framewire does not read",
                hint="export a model of the task detect",
            )
        extra = values - 4 - len(names) if names else masks
        # With metadata the names count the classes, and what is left must be what the task adds.
        if extra != masks and not (task == "pose" and extra > 0):
            return None
        classes = values - 4 - extra
        if classes < 1:
            return None
        sample = sample_of(signature, output)
        table = None if sample is None else sample.T if transposed else sample
        units = units_of(None if table is None else table[:4].T, picture)
        if units == "raw" or (table is not None and not _are_probabilities(table[4 : 4 + classes])):
            return None
        options: dict[str, Any] = {}
        why = f"one output of {values} values for the {places} cells of strides "
        why += f"{', '.join(map(str, cells[places]))}: boxes and {classes} classes"
        if task:
            why = f"its metadata say so (ultralytics, task {task}); {why}"
        if transposed:
            options["transposed"] = True
        if units == "shares":
            options["normalized"] = True
            why += "; the boxes of a test picture are shares of the input"
        if extra:
            options["classes"] = classes
            why += f"; {'key points' if task == 'pose' else 'masks'} are dropped, boxes kept"
        overrides = rgb_input(picture) | {
            "output_names": (output.name,),
            "nms_iou": _IOU,
            "options": options,
        }
        confidence = _confidence(transposed, classes, len(names), bool(units))
        if table is not None and not units:
            confidence = min(confidence, 0.6)  # boxes of no cells: queries of a DETR may be as many
        if turned and not transposed and not units:
            confidence = 0.3  # a small input: either axis may count places
        confidence = 1.0 if task else confidence
        return Guess("yolov8", overrides, confidence, why, classes)


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    return float(values.min()) >= -0.001 and float(values.max()) <= 1.001


def _confidence(transposed: bool, classes: int, named: int, told: bool) -> float:
    """Without ultralytics' metadata: transposed, the first class may as well be an objectness."""
    if not transposed:
        return 0.9 if told else 0.8
    if named:
        return 0.9  # as many as there are columns
    if classes == _COCO:
        return 0.85 if told else 0.7
    return 0.1 if classes == _COCO + 1 else 0.55 if told else 0.3
