"""SSD before its NMS: scores and boxes of all its priors.

Scores (1, n, columns), the first column the background, and boxes (1, n, 4), which are either

- ``corners``: ``x1, y1, x2, y2`` as shares of the input, the priors applied in the graph (UltraFace, and
  the exports of qfgaohao/pytorch-ssd), or
- ``offsets`` from the priors (Liu et al. 2016): centre = prior + offset * variance * prior's size, size =
  prior's size * exp(offset * variance), with a variance of 0.1 for centres and 0.2 for sizes.

Input of UltraFace: RGB, stretched, (x - 127) / 128; NMS 0.3. Its priors and those of SSD300 are recognised by
their number; others are to be named in a card. The test picture tells corners from offsets.

Options of the spec:

- ``scores``: ``probabilities`` (the default), ``softmax`` or ``sigmoid``, which of the two logits still need;
- ``background``: whether the first column is no class (true);
- ``boxes``: ``corners`` (the default) or ``offsets``;
- ``priors``, for offsets: see `pipeline.heads._priors.priors_of`;
- ``variances``, for offsets: two numbers, of centres and of sizes ([0.1, 0.2]);
- ``clip``, for offsets: whether the priors are cut to the input (true).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._options import one_of
from pipeline.heads._priors import priors_of
from pipeline.heads._ssd_raw_guess import guess_raw
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    all_classes,
    as_frame,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec
from pipeline.vision.boxes import cxcywh_to_xyxy

__all__ = ["SsdRawHead"]

_SCORES = ("probabilities", "softmax", "sigmoid")
_BOXES = ("corners", "offsets")
_VARIANCES = (0.1, 0.2)
#: Corners may lie outside of the input, but not so far.
_FARTHEST = 4.0
#: A box e^10 times as large as its prior: these are no logarithms.
_MAX_LOG_SIZE = 10.0
#: exp() of more overflows float32.
_MAX_LOGIT = 80.0


class SsdRawHead:
    """Decoder of scores and boxes of all priors; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`. Scores come first, then boxes."""
        if len(outputs) != 2:
            raise ModelError(
                f"model {spec.name!r} gives {len(outputs)} outputs, the ssd_raw head expects 2",
                hint="framewire models inspect FILE shows which families fit",
            )
        names = spec.output_names or ("scores", "boxes")
        raw = as_frame(outputs[1], names[1], (None, 4), spec)
        columns = as_frame(outputs[0], names[0], (len(raw), None), spec)
        scores = _scores(columns, names[0], spec)
        offsets = one_of(spec, "boxes", _BOXES) == "offsets"
        priors = _priors(spec, len(raw)) if offsets else None
        if not scores.size:
            return Detections.empty()
        rows, best, class_ids = all_classes(scores, confidence)
        if len(rows) and class_ids.max() >= max(len(spec.labels), 1):
            raise ModelError(
                f"model {spec.name!r} finds class {class_ids.max()}, and has {len(spec.labels)} labels",
                hint='give all of them in its card: {"labels": ["person", ...]}',
            )
        boxes = raw[rows]
        boxes = _corners(boxes, names[1], spec) if priors is None else _applied(boxes, priors[rows], spec)
        size = np.array([spec.input_width, spec.input_height] * 2, np.float32)
        return top_detections(boxes * size, best, class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """Two outputs with as many rows: boxes, and scores of which the first may be the background's."""
        picture = image_input(signature)
        if picture is None or len(signature.inputs) != 1:
            return None
        return guess_raw(signature, picture)


def _scores(values: NDArray[np.float32], name: str, spec: ModelSpec) -> NDArray[np.float32]:
    """Probabilities of the classes, without the background."""
    kind = one_of(spec, "scores", _SCORES)
    background = bool(spec.options.get("background", True))
    if values.shape[1] <= background:
        raise ModelError(
            f"output {name!r} of model {spec.name!r} has {values.shape[1]} columns, too few for a class",
            hint='say in its card that none is the background: {"options": {"background": false}}',
        )
    if kind == "softmax":
        weights = np.exp(values - values.max(axis=1, keepdims=True, initial=-np.inf))
        values = weights / weights.sum(axis=1, keepdims=True)
    elif kind == "sigmoid":
        values = np.asarray(1 / (1 + np.exp(-np.clip(values, -_MAX_LOGIT, _MAX_LOGIT))), np.float32)
    else:
        check_probabilities(values, "scores", spec)
    return values[:, 1:] if background else values


def _priors(spec: ModelSpec, rows: int) -> NDArray[np.float32]:
    what = spec.options.get("priors")
    if what is None:
        raise ModelError(
            f"the boxes of model {spec.name!r} are offsets from priors, which nothing names",
            hint='write them in its card: {"options": {"boxes": "offsets", "priors": {"strides": [8, 16], '
            '"min_boxes": [[10, 16], [32]]}}}',
        )
    clip = bool(spec.options.get("clip", True))
    priors = priors_of(what, spec.input_width, spec.input_height, clip, spec.name)
    if len(priors) != rows:
        raise ModelError(
            f"model {spec.name!r} gives {rows} boxes, its priors are {len(priors)}",
            hint="correct the priors among the options in its card",
        )
    return priors


def _applied(
    offsets: NDArray[np.float32], priors: NDArray[np.float32], spec: ModelSpec
) -> NDArray[np.float32]:
    """Corners of boxes from offsets and their priors, both (n, 4)."""
    variances = spec.options.get("variances", _VARIANCES)
    numbers = isinstance(variances, list | tuple) and len(variances) == 2
    if not numbers or not all(isinstance(one, int | float) and one > 0 for one in variances):
        raise ModelError(
            f"the option variances of model {spec.name!r} is {variances!r}",
            hint="give two numbers over 0: of centres and of sizes, [0.1, 0.2]",
        )
    shifts, logs = offsets[:, :2] * np.float32(variances[0]), offsets[:, 2:] * np.float32(variances[1])
    largest = float(np.abs(logs).max(initial=0.0))
    if largest > _MAX_LOG_SIZE:
        raise ModelError(
            f"boxes of model {spec.name!r} hold sizes up to {largest:.4g} where logarithms belong",
            hint='their priors are applied already: {"options": {"boxes": "corners"}} in its card',
        )
    centres = priors[:, :2] + shifts * priors[:, 2:]
    return cxcywh_to_xyxy(np.hstack([centres, priors[:, 2:] * np.exp(logs)]))


def _corners(boxes: NDArray[np.float32], name: str, spec: ModelSpec) -> NDArray[np.float32]:
    """The same, when they are corners as shares of the input."""
    farthest = float(np.abs(boxes).max(initial=0.0))
    upside_down = bool((boxes[:, 2:] < boxes[:, :2]).any())
    if farthest > _FARTHEST or upside_down:
        found = "end before they begin" if upside_down else f"reach {farthest:.4g}"
        raise ModelError(
            f"boxes in output {name!r} of model {spec.name!r} {found}, "
            "where corners as shares of the input belong, 0 to 1",
            hint='offsets from priors are said in its card: {"options": {"boxes": "offsets", "priors": ...}}',
        )
    return boxes
