"""Rows that need no NMS: YOLOv10, YOLO26, and whatever ultralytics exports with ``nms=True``.

One output (1, n, 6), n usually 300: ``x1, y1, x2, y2, score, class`` by descending score, boxes in pixels of
the input. Rows that are left over hold zeros. Of segmentation and pose models (further columns) the boxes
are read, the rest is dropped.

Input: RGB 0..1, letterboxed in the middle, padded with 114, as for YOLOv8.

Option: ``normalized`` (the boxes are shares of the input, as exports from TensorFlow have them).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads._yolo import (
    cells_of,
    class_column,
    name_of,
    one_output,
    rgb_input,
    sample_of,
    scaled,
    table_of,
    task_of,
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

__all__ = ["Yolov10Head"]

#: More rows than any of these keeps; fewer than the places of a grid.
_MOST_ROWS = 1000
_COCO = 80


class Yolov10Head:
    """Decoder of finished rows; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`. Rows with a score of 0 are none."""
        rows = one_output(outputs, (None, None), spec)
        if rows.shape[1] < 6:
            raise ModelError(
                f"output {name_of(spec, 0)!r} of model {spec.name!r} has {rows.shape[1]} columns, "
                "yolov10 needs 6",
                hint="name the right family for this file",
            )
        check_probabilities(rows[:, 4], "scores", spec)
        rows = rows[(rows[:, 4] >= confidence) & (rows[:, 4] > 0)]
        class_ids = class_column(rows[:, 5], spec)
        return top_detections(scaled(rows[:, :4], spec), rows[:, 4], class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """At most a thousand rows of six columns, or of more where metadata name the task."""
        picture = image_input(signature)
        found = table_of(signature)
        task = task_of(signature.metadata)
        if picture is None or found is None or task not in ("", "detect", "segment", "pose"):
            return None
        if "framewire.family" in signature.metadata or "detr" in signature.metadata.get("description", ""):
            return None  # RT-DETR of two classes, as ultralytics exports it, has six columns as well
        output, masks = found
        count, columns = (size if isinstance(size, int) else 0 for size in output.shape[1:])
        cells = cells_of(picture)
        if columns in cells:
            return None  # YOLOv8's table
        more = masks if task != "pose" else max(columns - 6, 0)
        if not 1 <= count <= _MOST_ROWS or columns != 6 + more:
            return None
        why = f"one output of {count} rows of 6: box, score and class"
        values = sample_of(signature, output)
        told = values is not None and bool(values.any())
        if values is not None and not _columns_fit(values):
            return None
        grid = count in cells  # YOLOX of one class, or YOLOv8 of two
        confidence = 0.7 if told else 0.3 if grid else 0.6
        if told:
            confidence = 0.6 if grid else 0.9
            why += "; those of a test picture fall by score and have whole class ids"
        if task and not grid:
            confidence = 1.0
            why = f"its metadata say so (ultralytics, task {task}); {why}"
        if more:
            why += f"; {'key points' if task == 'pose' else 'masks'} are dropped, boxes kept"
        options: dict[str, Any] = {}
        if values is not None and told and 0.1 < float(np.abs(values[:, :4]).max()) <= 1.5:
            options["normalized"] = True
            why += "; its boxes are shares of the input"
        overrides = rgb_input(picture) | {
            "output_names": (output.name,),
            "nms_iou": None,
            "options": options,
        }
        names = names_in(signature.metadata)
        return Guess("yolov10", overrides, confidence, why, len(names) or _COCO)


def _columns_fit(rows: NDArray[np.float32]) -> bool:
    """Whether scores fall from row to row within 0..1, and class ids are whole."""
    scores, ids = rows[:, 4], rows[:, 5]
    if float(scores.min()) < 0 or float(scores.max()) > 1.001:
        return False
    falling = bool((np.diff(scores) <= 1e-3).all())
    return falling and float(ids.min()) >= 0 and bool((np.abs(ids - np.rint(ids)) < 1e-3).all())
