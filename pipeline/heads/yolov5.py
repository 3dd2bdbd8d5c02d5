"""YOLOv5's table: decoded boxes with an objectness; also YOLOv7, YOLOv6, ultralytics' YOLOv3, decoded YOLOX.

*Table* (1, n, 5 + classes): ``cx, cy, w, h`` in pixels of the input, objectness, classes, all past their
sigmoid; score = objectness * class, the best class of a place. n is 3 anchors for each cell of strides 8, 16
and 32 (25200 at 640x640; with 64 as well for the P6 models, 16 and 32 alone for YOLOv3-tiny), or the cells
themselves in anchor-free models: YOLOX exported with ``--decode_in_inference``, YOLOv6. Further outputs
(mask prototypes, undecoded maps) are not read.

*Rows* (n, 7): ``batch, x1, y1, x2, y2, class, score``, n as many as NMS within the graph leaves: YOLOv7's
``--grid --end2end --max-wh`` (WongKinYiu/yolov7, ``ORT_NMS``).

Input: RGB 0..1, letterboxed in the middle, padded with 114; NMS 0.45 (ultralytics/yolov5 ``detect.py`` and
WongKinYiu/yolov7 ``detect.py``). Decoded YOLOX: BGR 0..255 at the top left, padded with 114; NMS 0.65.

Options: ``normalized`` (the boxes are shares of the input, as exports from TensorFlow have them),
``classes`` (columns after them, such as the coefficients of masks, are dropped).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads._yolo import (
    FLOATS,
    boxes_of,
    cells_of,
    class_column,
    class_count,
    name_of,
    one_output,
    rgb_input,
    sample_of,
    scaled,
    table_of,
    task_of,
    units_of,
    yolox_input,
)
from pipeline.heads.base import (
    TOP_K,
    Guess,
    InputFormat,
    Signature,
    TensorInfo,
    best_classes,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["Yolov5Head"]

_IOU = 0.45
_YOLOX_IOU = 0.65
#: YOLOv7 keeps 100 rows (``--topk-all``) unless told otherwise.
_MAX_ROWS = 1000
_COCO = 80
_STRIDES = (8, 16, 32)


class Yolov5Head:
    """Decoder of both layouts; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if spec.max_rows:
            return _decode_rows(outputs, spec, confidence, limit)
        table = one_output(outputs, (None, None), spec)
        if table.shape[1] < 6:
            raise ModelError(
                f"output {name_of(spec, 0)!r} of model {spec.name!r} has {table.shape[1]} columns, "
                "yolov5 needs 5 + classes",
                hint="name the right family for this file",
            )
        classes = class_count(spec, table.shape[1] - 5)
        check_probabilities(table[:, 4], "objectness values", spec)
        # A class is at most 1, so an object under the confidence cannot reach it.
        rows = table[table[:, 4] >= confidence, : 5 + classes]
        check_probabilities(rows[:, 5:], "class scores", spec)
        if len(rows) == 0:
            return Detections.empty()
        keep, scores, class_ids = best_classes(rows[:, 5:] * rows[:, 4:5], confidence)
        return top_detections(boxes_of(rows[keep, :4], spec), scores, class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """One table with a known number of places, or rows of seven columns."""
        picture = image_input(signature)
        if picture is None or task_of(signature.metadata) not in ("", "detect", "segment"):
            return None
        found = table_of(signature)
        return _guess_rows(signature, picture) if found is None else _guess_table(signature, picture, *found)


def _guess_table(signature: Signature, picture: InputFormat, output: TensorInfo, masks: int) -> Guess | None:
    places, columns = (size if isinstance(size, int) else 0 for size in output.shape[1:])
    classes = columns - 5 - masks
    if classes < 1:
        return None
    cells = cells_of(picture)
    anchors = {3 * count: strides for count, strides in cells.items()}
    values = sample_of(signature, output)
    units = units_of(None if values is None else values[:, :4], picture)
    if units == "raw" or (values is not None and not _are_probabilities(values[:, 4 : 5 + classes])):
        return None
    if places in anchors:
        why = f"one output of {places} rows, 3 anchors a cell of strides {_listed(anchors[places])}"
        overrides, confidence = rgb_input(picture) | {"nms_iou": _IOU}, 0.95 if units else 0.85
    elif places in cells:
        why = f"one output of {places} rows, the cells of strides {_listed(cells[places])}"
        ones = values is not None and bool((values[:, 4] == 1).all())
        if cells[places] != _STRIDES and not (units and ones):
            return None  # raw NanoDet-Plus has such a shape
        overrides, confidence, whose = _anchor_free(signature, picture, units, ones, classes)
        why += whose
    else:
        return None
    options: dict[str, Any] = {}
    if units == "shares":
        options["normalized"] = True
        why += "; the boxes of a test picture are shares of the input"
    if masks:
        options["classes"] = classes
        why += "; masks are dropped, boxes kept"
    overrides |= {"output_names": (output.name,), "options": options}
    why += f", with 5 + {classes} columns"
    return Guess("yolov5", overrides, confidence, why, classes)


def _are_probabilities(values: NDArray[np.float32]) -> bool:
    return float(values.min()) >= -0.001 and float(values.max()) <= 1.001


def _listed(strides: Sequence[int]) -> str:
    return ", ".join(map(str, strides))


def _anchor_free(
    signature: Signature,
    picture: InputFormat,
    units: str,
    ones: bool,
    classes: int,
) -> tuple[dict[str, Any], float, str]:
    """Input, confidence and reason where a row stands for a cell: decoded YOLOX or YOLOv6."""
    named = len(names_in(signature.metadata))
    other = named == classes + 1 or (not named and classes + 1 == _COCO)
    if not units:
        overrides = yolox_input(picture) | {"nms_iou": _YOLOX_IOU}
        return (
            overrides,
            0.2,
            "; decoded YOLOX has the shape of raw YOLOX, and no test picture tells them apart",
        )
    confidence = 0.3 if other else 0.85 if classes in (named, _COCO) else 0.7
    if ones:
        # meituan/YOLOv6 fills the column of the objectness, which it has not, with ones.
        return (
            rgb_input(picture) | {"nms_iou": _IOU},
            confidence,
            "; boxes of a test picture are decoded and its objectness is 1 throughout: YOLOv6",
        )
    why = "; boxes of a test picture are decoded: centres spread over the input: YOLOX decoded in the graph"
    return yolox_input(picture) | {"nms_iou": _YOLOX_IOU}, confidence, why


def _decode_rows(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    rows = one_output(outputs, (None, 7), spec)
    check_probabilities(rows[:, 6], "scores", spec)
    rows = rows[(rows[:, 6] >= confidence) & (rows[:, 6] > 0)]
    class_ids = class_column(rows[:, 5], spec)
    return top_detections(scaled(rows[:, 1:5], spec), rows[:, 6], class_ids, spec, limit)


def _guess_rows(signature: Signature, picture: InputFormat) -> Guess | None:
    """Rows that NMS left; YOLO-NAS' have the same shape, and class and score the other way round."""
    if len(signature.outputs) != 1 or picture.dtype == "uint8":
        return None
    output = signature.outputs[0]
    if len(output.shape) != 2 or output.shape[1] != 7 or output.dtype not in FLOATS:
        return None
    if "flat_predictions" in output.name:
        return None
    values = sample_of(signature, output)
    told = values is not None and _columns_fit(values)
    if values is not None and not told:
        return None
    usual = output.name == "output" and any(info.name == "images" for info in signature.inputs)
    overrides = rgb_input(picture) | {
        "output_names": (output.name,),
        "nms_iou": None,
        "max_rows": _MAX_ROWS,
    }
    why = "one output of rows of 7, NMS in the graph: batch, box, class and score, as YOLOv7's end2end export"
    why += "; those of a test picture fit" if told else ""
    classes = len(names_in(signature.metadata)) or _COCO
    return Guess("yolov5", overrides, 0.9 if told and usual else 0.7 if told or usual else 0.4, why, classes)


def _columns_fit(rows: NDArray[np.float32]) -> bool:
    ids, scores = rows[:, 5], rows[:, 6]
    whole = bool((np.abs(ids - np.rint(ids)) < 1e-3).all()) and float(ids.min()) >= 0
    return whole and _are_probabilities(scores)
