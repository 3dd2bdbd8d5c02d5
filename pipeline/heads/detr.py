"""DETR and its kin: a fixed number of queries, no NMS; in three layouts.

*Finished* (RT-DETR, D-FINE, DEIM, DEIMv2: ``images`` and ``orig_target_sizes`` in): ``labels`` (1, n) class
ids, ``boxes`` (1, n, 4) xyxy in pixels of ``orig_target_sizes`` and ``scores`` (1, n). The sizes (width,
height) that are fed are the input's own, so that boxes are in input pixels. Input: RGB / 255, stretched.
The DEIMv2 sizes S to X, with a DINOv3 backbone, also want ImageNet's mean and std, which nothing in the
file tells: say so in a card, ``{"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}``.

*Raw* (RF-DETR, LW-DETR: ``dets`` and ``labels``; Hugging Face: ``pred_boxes`` and ``logits``): boxes (1, n,
4) cxcywh, 0..1, and scores (1, n, columns). As in the references (lyuwenyu/RT-DETR
``rtdetr_postprocessor.py``, rfdetr ``postprocess.py``) the best n pairs of query and class are taken where
each class has its own sigmoid, and the best class of each query after a softmax. Input: RGB, stretched,
with ImageNet's mean and std, but / 255 only for RT-DETR and D-FINE.

*Joined* (RT-DETR as Ultralytics exports it): one output (1, n, 4 + classes), boxes cxcywh, 0..1, then
probabilities; the best class of each query is taken. Input: RGB / 255, stretched.

Options of the spec, for the raw layout:

- ``scores``: ``sigmoid`` (logits, each class for itself; the default), ``softmax`` (logits, the last column
  means no object: DETR, YOLOS) or ``probabilities`` (after their sigmoid).
- ``no_object``: whether the last column is no class; true for ``softmax``. An RF-DETR trained on classes
  from 0 has such a column as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._detr_guess import SCORES, guess_finished, guess_joined, guess_raw
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    all_classes,
    as_frame,
    as_ids,
    best_classes,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec
from pipeline.vision.boxes import cxcywh_to_xyxy

__all__ = ["DetrHead"]

#: Boxes as shares of the frame may reach beyond it, but not so far: these are pixels.
_FARTHEST = 4.0


class DetrHead:
    """Decoder of the three layouts; see the module. The number of outputs tells them apart."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) == 3:
            return _decode_finished(outputs, spec, confidence, limit)
        if len(outputs) == 2:
            return _decode_raw(outputs, spec, confidence, limit)
        if len(outputs) == 1:
            return _decode_joined(outputs[0], spec, confidence, limit)
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the detr head expects 1, 2 or 3",
            hint="framewire models inspect FILE shows which families fit",
        )

    def recognise(self, signature: Signature) -> Guess | None:
        """``orig_target_sizes`` in and labels, boxes and scores out, or boxes and scores of few queries."""
        picture = image_input(signature)
        if picture is None or picture.layout != "nchw" or picture.dtype == "uint8":
            return None
        guess = guess_finished(signature, picture) or guess_raw(signature, picture)
        return guess or guess_joined(signature, picture)


def _decode_finished(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    names = spec.output_names or ("labels", "boxes", "scores")
    boxes_at = [index for index, output in enumerate(outputs) if output.ndim == 3]
    rest = [index for index, output in enumerate(outputs) if output.ndim == 2]
    if len(boxes_at) != 1 or len(rest) != 2:
        raise ModelError(
            f"outputs of model {spec.name!r} are {', '.join(str(output.shape) for output in outputs)}, "
            "the detr head expects labels (1, n), boxes (1, n, 4) and scores (1, n)",
            hint="name them in this order in a card: output_names",
        )
    # A card may name them in the file's own order: class ids are integers, or come before the scores.
    ids_at, scores_at = sorted(rest, key=lambda index: (outputs[index].dtype.kind not in "iu", index))
    boxes = as_frame(outputs[boxes_at[0]], names[boxes_at[0]], (None, 4), spec)
    scores = as_frame(outputs[scores_at], names[scores_at], (len(boxes),), spec)
    class_ids = as_ids(outputs[ids_at], names[ids_at], (len(boxes),), spec)
    check_probabilities(scores, "scores", spec)
    rows = np.flatnonzero((scores >= confidence) & (scores > 0))
    if len(rows) and not 0 <= class_ids[rows].min() <= class_ids[rows].max() < max(len(spec.labels), 1):
        raise ModelError(
            f"model {spec.name!r} finds classes {class_ids[rows].min()} to {class_ids[rows].max()}, "
            f"and has {len(spec.labels)} labels",
            hint='give all of them in its card: {"labels": ["person", ...]}',
        )
    return top_detections(boxes[rows], scores[rows], class_ids[rows], spec, limit)


def _decode_raw(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int
) -> Detections:
    kind = spec.options.get("scores", "sigmoid")
    if kind not in SCORES:
        raise ModelError(
            f"the option scores of model {spec.name!r} is {kind!r}", hint=f"use one of {', '.join(SCORES)}"
        )
    names = spec.output_names or ("boxes", "scores")
    shares = as_frame(outputs[0], names[0], (None, 4), spec)
    values = as_frame(outputs[1], names[1], (len(shares), None), spec)
    no_object = bool(spec.options.get("no_object", kind == "softmax"))
    if values.shape[1] <= no_object:
        raise ModelError(
            f"output {names[1]!r} of model {spec.name!r} has {values.shape[1]} columns, too few for a class",
            hint="name the right family for this file",
        )
    if kind == "softmax":
        weights = np.exp(values - values.max(axis=1, keepdims=True))
        values = weights / weights.sum(axis=1, keepdims=True)
    elif kind == "probabilities":
        check_probabilities(values, "scores", spec)
    else:
        values = np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    values = values[:, :-1] if no_object else values
    if not values.size:
        return Detections.empty()
    pick = best_classes if kind == "softmax" else all_classes
    rows, scores, class_ids = pick(values, confidence)
    boxes = _in_pixels(shares, names[0], spec)[rows]
    return top_detections(boxes, scores, class_ids, spec, min(limit, len(shares)))


def _decode_joined(output: NDArray[Any], spec: ModelSpec, confidence: float, limit: int) -> Detections:
    name = spec.output_names[0] if spec.output_names else "0"
    raw = as_frame(output, name, (None, None), spec)
    if raw.shape[1] < 5:
        raise ModelError(
            f"output {name!r} of model {spec.name!r} has {raw.shape[1]} columns, detr needs 4 + classes",
            hint="name the right family for this file",
        )
    check_probabilities(raw[:, 4:], "scores", spec)
    boxes = _in_pixels(raw[:, :4], name, spec)
    rows, scores, class_ids = best_classes(raw[:, 4:], confidence)
    return top_detections(boxes[rows], scores, class_ids, spec, limit)


def _in_pixels(shares: NDArray[np.float32], name: str, spec: ModelSpec) -> NDArray[np.float32]:
    """Boxes cxcywh as shares of the frame to xyxy in input pixels.

    Raises:
        ModelError: they are no shares.
    """
    if shares.size and float(np.abs(shares).max()) > _FARTHEST:
        raise ModelError(
            f"output {name!r} of model {spec.name!r} reaches {float(np.abs(shares).max()):.4g}, "
            "where shares of the frame belong, 0 to 1",
            hint="name the boxes first, then the scores (output_names), or the right family for this file",
        )
    size = np.array([spec.input_width, spec.input_height] * 2, np.float32)
    return np.asarray(cxcywh_to_xyxy(shares) * size, np.float32)
