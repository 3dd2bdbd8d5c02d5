"""How SSDs without their NMS are told apart: numbers of priors and ranges of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.heads._priors import SSD300, ULTRAFACE, count_of
from pipeline.heads._rows import sample_of
from pipeline.heads.base import Guess, InputFormat, Signature, TensorInfo

__all__ = ["guess_raw"]

_FLOATS = ("float32", "float16")
#: The narrowest side that UltraFace is published for; smaller inputs have too few cells to tell.
_NARROWEST = 64
_INPUT: dict[str, Any] = {"channels": "rgb", "letterbox": "stretch"}
_ULTRAFACE: dict[str, Any] = {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0), "nms_iou": 0.3}
_MOBILENET: dict[str, Any] = {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0), "nms_iou": 0.45}
_VGG: dict[str, Any] = {"mean": (123.0, 117.0, 104.0), "std": (1.0, 1.0, 1.0), "nms_iou": 0.45}
#: Offsets are some times their variances; pixels go beyond.
_LARGEST_OFFSET = 50.0


def guess_raw(signature: Signature, picture: InputFormat) -> Guess | None:
    """Scores and boxes with as many rows; see `pipeline.heads.ssd_raw`."""
    pair = _scores_and_boxes(signature)
    if pair is None:
        return None
    scores, boxes = pair
    rows, columns = scores.shape[1:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        return None
    where, kind = _seen_boxes(signature, boxes), _seen_scores(signature, scores, columns)
    if where == "other":
        return None
    background = kind != "sigmoid" and columns > 1
    options: dict[str, Any] = {
        "scores": "probabilities" if kind in ("", "sigmoid", "softmax") else "softmax",
        "background": background,
        "boxes": where or "corners",
    }
    given, confidence, whose = _MOBILENET, 0.3, "as of SSDs"
    labels: tuple[str, ...] = ()
    known = _known(rows, columns, picture)
    if known == "ultraface":
        given, confidence, whose, labels = _ULTRAFACE, 0.95, "those of UltraFace", ("face",)
        options |= {"priors": ULTRAFACE} if where == "offsets" else {}
    elif known == "ssd300":
        given, confidence, whose = _VGG, 0.65, "those of SSD300"
        options |= {"priors": SSD300} if where == "offsets" else {}
    elif where == "corners" and kind == "softmax":
        named = (scores.name, boxes.name) == ("scores", "boxes")
        confidence, whose = (0.75 if named else 0.6), "as of pytorch-ssd"
    why = f"scores in {columns} columns and boxes of {rows} priors, {whose}"
    if not where:
        confidence = min(confidence, 0.45)
        why += "; whether the boxes are corners or offsets from priors, nothing tells"
    elif where == "offsets":
        why += "; the boxes are offsets from priors" + ("" if known else ", which a card has to name")
    overrides = picture.overrides() | _INPUT | given
    if picture.dtype == "uint8":
        overrides |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    overrides |= {"output_names": (scores.name, boxes.name), "options": options}
    return Guess("ssd_raw", overrides, confidence, why, columns - background, labels)


def _scores_and_boxes(signature: Signature) -> tuple[TensorInfo, TensorInfo] | None:
    outputs = [o for o in signature.outputs if len(o.shape) == 3 and o.dtype in _FLOATS]
    if len(outputs) != 2 or len(signature.outputs) != 2 or outputs[0].shape[1] != outputs[1].shape[1]:
        return None
    fours = [o for o in outputs if o.shape[2] == 4]
    if len(fours) == 2:  # three classes and the background
        fours = [o for o in outputs if any(word in o.name.lower() for word in ("box", "loc", "reg"))]
    if len(fours) != 1:
        return None
    return (outputs[1] if outputs[0] is fours[0] else outputs[0]), fours[0]


def _known(rows: int, columns: int, picture: InputFormat) -> str:
    size = picture.width, picture.height
    if columns == 2 and min(size) >= _NARROWEST and rows == count_of(ULTRAFACE, *size):
        return "ultraface"
    return "ssd300" if size == (300, 300) and rows == count_of(SSD300, *size) else ""


def _seen_boxes(signature: Signature, boxes: TensorInfo) -> str:
    """``corners``, ``offsets`` or ``other``; empty without values."""
    values = sample_of(signature, boxes, 4)
    if values is None:
        return ""
    upright = float(np.mean((values[:, 2:] >= values[:, :2]).all(axis=1)))
    largest = float(np.abs(values).max())
    if upright >= 0.99 and largest <= 2:
        return "corners"
    # Those of other families have no negative sizes, or are in pixels.
    negative = float(np.mean(values < 0))
    return "offsets" if largest < _LARGEST_OFFSET and upright < 0.9 and negative > 0.01 else "other"


def _seen_scores(signature: Signature, scores: TensorInfo, columns: int) -> str:
    """``softmax`` (rows sum to 1), ``sigmoid`` (each 0 to 1) or ``logits``; empty without values."""
    values = sample_of(signature, scores, columns)
    if values is None:
        return ""
    if values.min() < 0 or values.max() > 1.001:
        return "logits"
    sums = values.sum(axis=1)
    return "softmax" if columns > 1 and float(np.abs(sums - 1).max()) < 0.01 else "sigmoid"
