"""PicoDet (PaddleDetection, arXiv 2111.00902) in the three forms that it is exported in.

*Raw* (``export.benchmark=True``, and the published ONNX files): per stride 8, 16, 32, 64 class scores (1,
cells, classes) after their sigmoid, then distances (1, cells, 4 x bins) as logits; see
`pipeline.heads._distances`. The reference points are the centres of the cells.

*Without NMS* (``export.nms=False``): boxes (1, n, 4) xyxy in input pixels and scores (1, classes, n), classes
first.

*With NMS* (the default): rows (n, 6) ``class, score, x1, y1, x2, y2`` and their count. The graph divides
the boxes by its input ``scale_factor``, which is fed 1, so that they stay in input pixels. The count is not
read: padded rows have a score of 0.

Options of the spec: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._distances import STRIDES, decode_levels, levels_of
from pipeline.heads._metadata import names_in
from pipeline.heads.base import (
    TOP_K,
    Guess,
    InputFormat,
    Signature,
    all_classes,
    as_frame,
    as_ids,
    check_probabilities,
    grid_counts,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["PicodetHead"]

#: The raw layout did best so with the real file on 60 COCO images (`scripts/check_accuracy`): RGB, as
#: it was trained (BGR costs 2 to 3 points of AP), stretched (letterboxing costs 3 to 4).
_INPUT: dict[str, Any] = {
    "channels": "rgb",
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
    "letterbox": "stretch",
    "pad_value": 0,
    "nms_iou": 0.6,  # as published: nms_threshold of PicoHead
}
#: Three times what its NMS keeps (``keep_top_k: 100``), and as much as that of PP-YOLOE.
_MAX_ROWS = 300
#: Inputs that PaddleDetection's exports take beside the picture.
_SIZES = ("im_shape", "scale_factor")


class PicodetHead:
    """Decoder of the three forms; see the module. The number of outputs tells them apart."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 1:
            return _decode_rows(outputs[0], spec, confidence, limit)
        if len(outputs) == 2:
            return _decode_finished(outputs, spec, confidence, limit)
        if len(outputs) == 8:
            return decode_levels(outputs, spec, confidence, limit, 0.5)
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the picodet head expects 1, 2 or 8",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """Eight outputs of four strides, boxes and transposed scores, or rows and their count."""
        picture = image_input(signature)
        if picture is None or picture.layout != "nchw" or picture.dtype == "uint8":
            return None
        others = {info.name for info in signature.inputs if len(info.shape) == 2}
        if len(signature.inputs) != 1 + len(others) or not others <= set(_SIZES):
            return None
        if len(signature.outputs) == 8 and not others:
            return _recognise_raw(signature, picture)
        if len(signature.outputs) == 2:
            return _recognise_finished(signature, picture) or _recognise_rows(signature, picture)
        return None


def _decode_finished(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    names = spec.output_names or ("boxes", "scores")
    boxes = as_frame(outputs[0], names[0], (None, 4), spec)
    by_class = as_frame(outputs[1], names[1], (None, len(boxes)), spec)
    check_probabilities(by_class, "scores", spec)
    rows, scores, class_ids = all_classes(by_class.T, confidence) if by_class.size else _nothing()
    return top_detections(boxes[rows], scores, class_ids, spec, limit)


def _nothing() -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    return np.zeros(0, np.intp), np.zeros(0, np.float32), np.zeros(0, np.intp)


def _decode_rows(output: NDArray[Any], spec: ModelSpec, confidence: float, limit: int) -> Detections:
    name = spec.output_names[0] if spec.output_names else "0"
    rows = as_frame(output, name, (None, 6), spec)
    # A class of -1 is how older exports say that nothing was found.
    rows = rows[(rows[:, 0] >= 0) & (rows[:, 1] != 0)]
    check_probabilities(rows[:, 1], "scores", spec)
    rows = rows[rows[:, 1] >= confidence]
    class_ids = as_ids(rows[None, :, 0], name, (None,), spec)
    if len(rows) and class_ids.max() >= len(spec.labels):
        raise ModelError(
            f"model {spec.name!r} finds class {class_ids.max()}, and has {len(spec.labels)} labels",
            hint='give all of them in its card: {"labels": ["person", ...]}',
        )
    return top_detections(rows[:, 2:], rows[:, 1], class_ids, spec, limit)


def _feeds(signature: Signature, picture: InputFormat) -> dict[str, tuple[float, ...]]:
    values = {"im_shape": (float(picture.height), float(picture.width)), "scale_factor": (1.0, 1.0)}
    return {info.name: values[info.name] for info in signature.inputs if info.name in values}


def _recognise_raw(signature: Signature, picture: InputFormat) -> Guess | None:
    levels = levels_of(signature, picture)
    if levels is None or any("pred_stride" in name for name in levels[0]):
        return None
    names, bins, classes = levels
    overrides = picture.overrides() | _INPUT | {"output_names": names}
    why = f"class scores and {bins}-bin distances at strides 8 to 64: raw PicoDet"
    return Guess("picodet", overrides, 0.85, why, classes)


def _recognise_finished(signature: Signature, picture: InputFormat) -> Guess | None:
    """Boxes and scores with the classes first, which no other family has."""
    outputs = signature.outputs
    if any(len(o.shape) != 3 or o.dtype not in ("float32", "float16") for o in outputs):
        return None
    pairs = [
        (one, two)
        for one, two in (outputs, outputs[::-1])
        if one.shape[2] == 4 and isinstance(one.shape[1], int) and one.shape[1] == two.shape[2]
    ]
    if len(pairs) != 1 or pairs[0][0].shape[1] == pairs[0][1].shape[1]:
        return None
    boxes, scores = pairs[0]
    sample = signature.samples.get(scores.name)
    if sample is not None and sample.size and not 0 <= float(sample.min()) <= float(sample.max()) <= 1:
        return None
    classes = scores.shape[1]
    overrides = picture.overrides() | _INPUT | {"output_names": (boxes.name, scores.name)}
    overrides |= {"feeds": _feeds(signature, picture)}
    cells = sum(grid_counts(picture.width, picture.height, STRIDES))
    known = classes if isinstance(classes, int) else 0
    if boxes.shape[1] == cells:
        why = f"boxes and, classes first, scores of the {cells} cells of strides 8 to 64: PicoDet without NMS"
        return Guess("picodet", overrides, 0.85, why, known)
    why = (
        f"boxes and, classes first, scores of {boxes.shape[1]} places: like PicoDet without NMS, whose cells "
        f"are {cells}; PP-YOLOE exports look so, and may want another mean and std"
    )
    return Guess("picodet", overrides, 0.4, why, known)


def _recognise_rows(signature: Signature, picture: InputFormat) -> Guess | None:
    rows = [o for o in signature.outputs if len(o.shape) == 2 and o.shape[1] == 6]
    counts = [o for o in signature.outputs if len(o.shape) == 1]
    if len(rows) != 1 or len(counts) != 1 or not any(i.name == "scale_factor" for i in signature.inputs):
        return None
    overrides = picture.overrides() | _INPUT
    overrides |= {
        "output_names": (rows[0].name,),
        "feeds": _feeds(signature, picture),
        "max_rows": _MAX_ROWS,
        "nms_iou": None,
    }
    small = max(picture.width, picture.height) <= 416
    usual = "PicoDet is published at 320 and 416" if small else "PicoDet or PP-YOLOE, which want other inputs"
    why = f"rows of class, score and box with their count, and a scale_factor in: PaddleDetection ({usual})"
    names = names_in(signature.metadata)
    if not names:
        why += "; the labels of COCO taken, for the file names none"
    return Guess("picodet", overrides, 0.6 if small else 0.45, why, len(names) or 80, names)
