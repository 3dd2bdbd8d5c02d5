"""Boxes as distances of the four sides, each spread over bins: what NanoDet and PicoDet share.

A distance is the expectation of the softmax over its bins, times the stride; box = reference point -/+ (left,
top, right, bottom). From Generalized Focal Loss (Li et al. 2020, arXiv 2006.04388).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads.base import (
    InputFormat,
    Signature,
    TensorInfo,
    all_classes,
    as_frame,
    check_probabilities,
    grid_counts,
    grid_points,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["STRIDES", "decode_levels", "levels_of", "sides_of"]

#: Pixels per cell of each level; the older models lack the last one.
STRIDES = (8, 16, 32, 64)


def sides_of(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances of the four sides in cells: mean bin number under the softmax over the bins.

    Args:
        logits: float32 (n, 4 x bins), side after side.

    Returns:
        float32 (n, 4): left, top, right, bottom.
    """
    by_side = logits.reshape(len(logits), 4, logits.shape[1] // 4)
    weights = np.exp(by_side - by_side.max(axis=2, keepdims=True))
    bins = np.arange(by_side.shape[2], dtype=np.float32)
    return np.asarray(weights @ bins / weights.sum(axis=2), np.float32)


def decode_levels(
    outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int, offset: float
) -> Detections:
    """Decode one frame of a raw export: scores of each level, then distances of each level.

    Args:
        outputs: Per stride class scores (1, cells, classes) after their sigmoid, then per stride distances
            (1, cells, 4 x bins) as logits.
        spec: The model.
        confidence: Scores under this are left out. A place gives every class that reaches it.
        limit: At most so many detections.
        offset: Of the reference point inside its cell, in cells: 0 is the corner, 0.5 the centre.

    Raises:
        ModelError: as `pipeline.heads.Head.decode`.
    """
    levels = len(outputs) // 2
    strides = STRIDES[:levels]
    names = spec.output_names or tuple(str(index) for index in range(len(outputs)))
    points, sizes = grid_points(spec.input_width, spec.input_height, strides, offset)
    boxes, scores, classes = [], [], []
    start = 0
    for level, cells in enumerate(grid_counts(spec.input_width, spec.input_height, strides)):
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
        sides = sides_of(logits[rows]) * sizes[start + rows]
        centres = points[start + rows]
        scores.append(best)
        classes.append(class_ids)
        boxes.append(np.hstack([centres - sides[:, :2], centres + sides[:, 2:]]))
        start += cells
    return top_detections(np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes), spec, limit)


def levels_of(signature: Signature, picture: InputFormat) -> tuple[tuple[str, ...], int, int] | None:
    """The outputs of a raw export of 3 or 4 levels, in the order of `decode_levels`.

    Args:
        signature: The graph.
        picture: The format of its input.

    Returns:
        Names of the outputs, bins of a side, and classes (0 where that size is free); None where the outputs
        are no such pairs.
    """
    outputs = signature.outputs
    if len(outputs) not in (6, 8) or any(
        len(output.shape) != 3 or output.dtype not in ("float32", "float16") for output in outputs
    ):
        return None
    levels = len(outputs) // 2
    split = _split(outputs)
    if split is None:
        return None
    counts = grid_counts(picture.width, picture.height, STRIDES[:levels])
    for half in split:
        if [output.shape[1] for output in half] != counts or len({output.shape[2] for output in half}) != 1:
            return None
    columns, classes = split[1][0].shape[2], split[0][0].shape[2]
    if not isinstance(columns, int) or columns < 8 or columns % 4:
        return None
    names = tuple(output.name for half in split for output in half)
    return names, columns // 4, classes if isinstance(classes, int) else 0


def _split(outputs: Sequence[TensorInfo]) -> tuple[list[TensorInfo], list[TensorInfo]] | None:
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
