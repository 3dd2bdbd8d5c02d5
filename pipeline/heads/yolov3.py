"""YOLOv3 and YOLOv3-tiny: the ONNX model zoo's layout, and the undecoded grids of darknet.

*Zoo* (onnx/models ``yolov3-10``, ``yolov3-12``, ``tiny-yolov3-11``; converted from qqwweee/keras-yolo3):
boxes (1, n, 4) ``y1, x1, y2, x2`` in pixels of the frame whose height and width the input ``image_shape``
names, and scores (1, classes, n); a third output says which of them NMS within the graph leaves. It is not
read: its thresholds are fixed, ours are the user's. ``image_shape`` is fed the size of the input itself, so
that boxes stay in its pixels.

*Grids* (Redmon and Farhadi, "YOLOv3: An Incremental Improvement", 2018): one output a stride, 32, 16 and 8
(tiny: 32 and 16), as (1, 3 * (5 + classes), h, w), (1, h, w, 3 * (5 + classes)), (1, 3, h, w, 5 + classes)
or (1, h, w, 3, 5 + classes), with ``tx, ty, tw, th``, objectness and classes before their sigmoid.
Centre = (sigmoid(txy) + cell) * stride, size = exp(twh) * anchor, score = objectness * class.

In both a place gives every class that reaches the confidence, as in keras-yolo3 and darknet.

Input: RGB 0..1, letterboxed in the middle, padded with 128 (zoo and keras-yolo3; darknet pads with 0.5);
NMS 0.45 (keras-yolo3 and darknet).

Options: ``anchors``, one list for each output, in the order of ``output_names``, of three [width, height] in
pixels of the input. Without it those of the published weights are taken (pjreddie/darknet ``yolov3.cfg``);
those of tiny at stride 16 are its second to fourth, with which its weights were trained, not the first to
third that today's ``yolov3-tiny.cfg`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads._yolo import FLOATS, boxes_of, name_of, rgb_input
from pipeline.heads.base import (
    TOP_K,
    Guess,
    InputFormat,
    Signature,
    TensorInfo,
    all_classes,
    as_frame,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["Yolov3Head"]

_IOU = 0.45
_PAD = 128
_COCO = 80
#: exp(12) is a size of more than 160,000 anchors: no logarithm.
_MAX_LOG_SIZE = 12.0
#: By stride; three (width, height) in pixels of the input, whatever its size.
_ANCHORS: dict[int, tuple[tuple[int, int], ...]] = {
    32: ((116, 90), (156, 198), (373, 326)),
    16: ((30, 61), (62, 45), (59, 119)),
    8: ((10, 13), (16, 30), (33, 23)),
}
_TINY_ANCHORS: dict[int, tuple[tuple[int, int], ...]] = {
    32: ((81, 82), (135, 169), (344, 319)),
    16: ((23, 27), (37, 58), (81, 82)),
}


class Yolov3Head:
    """Decoder of both layouts; see the module. Outputs of rank 3 are the zoo's, of more are grids."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 2 and all(output.ndim == 3 for output in outputs):
            return _decode_zoo(outputs, spec, confidence, limit)
        if len(outputs) in (2, 3) and all(output.ndim in (4, 5) for output in outputs):
            return _decode_grids(outputs, spec, confidence, limit)
        raise ModelError(
            f"model {spec.name!r} gives outputs {[output.shape for output in outputs]}, the yolov3 head "
            "expects boxes and scores, or a grid for each of 2 or 3 strides",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """The zoo's ``image_shape`` input and outputs, or grids of strides 32, 16 (and 8)."""
        picture = image_input(signature)
        if picture is None:
            return None
        return _guess_zoo(signature, picture) or _guess_grids(signature, picture)


def _decode_zoo(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    boxes = as_frame(outputs[0], name_of(spec, 0), (None, 4), spec)
    scores = as_frame(outputs[1], name_of(spec, 1), (None, len(boxes)), spec)
    check_probabilities(scores, "scores", spec)
    if scores.size == 0:
        return Detections.empty()
    places = np.flatnonzero(scores.max(axis=0) >= confidence)
    if len(places) == 0:
        return Detections.empty()
    rows, best, class_ids = all_classes(scores[:, places].T, confidence)
    return top_detections(boxes[places[rows]][:, [1, 0, 3, 2]], best, class_ids, spec, limit)


def _decode_grids(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    picture = InputFormat(spec.input_width, spec.input_height, spec.input_dtype, spec.input_layout)
    anchors = _anchors_of(spec, len(outputs))
    parts, scores, classes = [], [], []
    for index, output in enumerate(outputs):
        name = name_of(spec, index)
        grid = as_frame(output, name, (None,) * (output.ndim - 1), spec)
        placed = _axes_of(grid.shape, picture)
        if placed is None:
            raise ModelError(
                f"output {name!r} of model {spec.name!r} has shape {output.shape}, no grid of stride 8, "
                f"16 or 32 of {spec.input_width}x{spec.input_height} with 3 x (5 + classes) values",
                hint="framewire models inspect FILE shows which families fit",
            )
        stride, kind = placed
        cells = _as_cells(grid, kind)
        own = _default_anchors(stride, len(outputs)) if anchors is None else anchors[index]
        sides = np.asarray(own, np.float32)
        found = np.argwhere(_sigmoid(cells[..., 4]) >= confidence)
        rows = cells[tuple(found.T)]
        keep, best, ids = _all_classes_of(rows, confidence)
        rows, places = rows[keep], found[keep]
        largest = float(np.max(rows[:, 2:4], initial=0.0))
        if largest > _MAX_LOG_SIZE:
            raise ModelError(
                f"output {name!r} of model {spec.name!r} holds box sizes up to {largest:.4g} where "
                "logarithms belong: its boxes are decoded already",
                hint="name the right family for this file",
            )
        centres = (_sigmoid(rows[:, :2]) + places[:, [1, 0]].astype(np.float32)) * np.float32(stride)
        parts.append(np.hstack([centres, np.exp(rows[:, 2:4]) * sides[places[:, 2]]]))
        scores.append(best)
        classes.append(ids)
    boxes = boxes_of(np.concatenate(parts), spec)
    return top_detections(boxes, np.concatenate(scores), np.concatenate(classes), spec, limit)


def _all_classes_of(
    rows: NDArray[np.float32], confidence: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """`all_classes` of rows of logits: box, objectness, classes."""
    if len(rows) == 0:
        return np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.intp)
    return all_classes(_sigmoid(rows[:, 5:]) * _sigmoid(rows[:, 4:5]), confidence)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By the tangent: exp of a large negative logit would overflow.
    return np.asarray(np.tanh(logits * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5), np.float32)


def _default_anchors(stride: int, levels: int) -> tuple[tuple[int, int], ...]:
    return (_TINY_ANCHORS if levels == 2 and stride in _TINY_ANCHORS else _ANCHORS)[stride]


def _anchors_of(spec: ModelSpec, levels: int) -> NDArray[np.float32] | None:
    """The option ``anchors``, checked; None without it."""
    given = spec.options.get("anchors")
    if given is None:
        return None
    try:
        sides = np.asarray(given, np.float32)
    except (TypeError, ValueError):
        sides = np.zeros(0, np.float32)
    if sides.shape != (levels, 3, 2) or not bool((sides > 0).all()):
        raise ModelError(
            f"the option anchors of model {spec.name!r} is not three [width, height] in pixels "
            f"for each of its {levels} outputs",
            hint='for example {"anchors": [[[81, 82], [135, 169], [344, 319]], [...]]}',
        )
    return sides


def _axes_of(shape: Sequence[Any], picture: InputFormat) -> tuple[int, str] | None:
    """Stride of a grid without its batch dimension, and the order of its axes."""
    for stride in (32, 16, 8):
        high, wide = -(-picture.height // stride), -(-picture.width // stride)
        sizes = list(shape)
        if len(sizes) == 3 and sizes[1:] == [high, wide] and _is_columns(sizes[0], 3):
            return stride, "chw"
        if len(sizes) == 3 and sizes[:2] == [high, wide] and _is_columns(sizes[2], 3):
            return stride, "hwc"
        if len(sizes) == 4 and sizes[:3] == [3, high, wide] and _is_columns(sizes[3], 1):
            return stride, "ahwc"
        if len(sizes) == 4 and sizes[:3] == [high, wide, 3] and _is_columns(sizes[3], 1):
            return stride, "hwac"
    return None


def _is_columns(size: Any, anchors: int) -> bool:
    return isinstance(size, int) and size % anchors == 0 and size // anchors >= 6


def _as_cells(grid: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """A view (h, w, 3, 5 + classes)."""
    if kind == "chw":
        return grid.reshape(3, grid.shape[0] // 3, *grid.shape[1:]).transpose(2, 3, 0, 1)
    if kind == "hwc":
        return grid.reshape(*grid.shape[:2], 3, grid.shape[2] // 3)
    return grid.transpose(1, 2, 0, 3) if kind == "ahwc" else grid


def _guess_zoo(signature: Signature, picture: InputFormat) -> Guess | None:
    sizes = [info for info in signature.inputs if info.name == "image_shape" and len(info.shape) == 2]
    tables = [one for one in signature.outputs if len(one.shape) == 3 and one.dtype in FLOATS]
    if len(signature.inputs) != 2 or len(sizes) != 1 or len(tables) != 2 or sizes[0].shape[1] != 2:
        return None
    boxes, scores = sorted(tables, key=lambda one: one.shape[2] != 4)
    classes = scores.shape[1]
    if boxes.shape[2] != 4 or not isinstance(classes, int) or boxes.shape[1] != scores.shape[2]:
        return None
    overrides = rgb_input(picture, _PAD) | {
        "output_names": (boxes.name, scores.name),
        "feeds": {sizes[0].name: (float(picture.height), float(picture.width))},
        "nms_iou": _IOU,
    }
    named = any("yolonms_layer" in one.name for one in signature.outputs)
    why = f"image_shape in; boxes and scores of {classes} classes out, as YOLOv3 of the ONNX model zoo"
    return Guess("yolov3", overrides, 0.95 if named else 0.8, why, classes)


def _guess_grids(signature: Signature, picture: InputFormat) -> Guess | None:
    outputs = signature.outputs
    if len(outputs) not in (2, 3) or any(one.dtype not in FLOATS for one in outputs):
        return None
    placed = [_axes_of(one.shape[1:], picture) for one in outputs]
    known = [one for one in placed if one is not None]
    strides = [stride for stride, _ in known]
    if len(known) != len(outputs) or sorted(strides) != [8, 16, 32][3 - len(outputs) :]:
        return None
    columns = {_columns_of(one, kind) for one, (_, kind) in zip(outputs, known, strict=True)}
    if len(columns) != 1 or not _are_logits(signature, picture):
        return None
    classes = columns.pop() - 5
    names = names_in(signature.metadata)
    overrides = rgb_input(picture, _PAD) | {
        "output_names": tuple(one.name for one in outputs),
        "nms_iou": _IOU,
        "options": {
            "anchors": [[list(pair) for pair in _default_anchors(one, len(outputs))] for one in strides]
        },
    }
    why = (
        f"grids of 3 x (5 + {classes}) values at strides {', '.join(map(str, strides))}, the default anchors"
    )
    # Never certain: somebody may have put the grids of a later YOLO in darknet's order.
    confidence = 0.8 if len(names) == classes or classes == _COCO else 0.45
    if strides[0] != 32:
        # Only darknet's order of layers speaks for the older decoding.
        confidence = 0.4
        why += "; undecoded YOLOv4, YOLOv5 and YOLOv7 have such outputs too and are decoded otherwise"
    return Guess("yolov3", overrides, confidence, why, classes)


def _columns_of(output: TensorInfo, kind: str) -> int:
    size = output.shape[1] if kind == "chw" else output.shape[-1]
    return (size if isinstance(size, int) else 0) // (3 if kind in ("chw", "hwc") else 1)


def _are_logits(signature: Signature, picture: InputFormat) -> bool:
    """False where values of a test picture have passed their sigmoid already."""
    for output in signature.outputs:
        sample = signature.samples.get(output.name)
        if sample is None:
            return True
        grid = np.asarray(sample[0], np.float32)
        placed = _axes_of(grid.shape, picture)
        if placed is None:
            return False
        scores = _as_cells(grid, placed[1])[..., 4:]
        if not bool(np.isfinite(grid).all()) or (
            bool(grid.any()) and float(scores.min()) >= 0 and float(scores.max()) <= 1
        ):
            return False
    return True
