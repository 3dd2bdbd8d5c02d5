"""Greedy non-maximum suppression, per class or across classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.boxes import Boxes, iou_matrix

__all__ = ["nms"]

#: Boxes that are compared with all the rest at once: few numpy calls, and never an n x n matrix.
_BLOCK = 32


def nms(
    boxes_xyxy: Boxes,
    scores: NDArray[np.floating[Any]],
    class_ids: NDArray[np.integer[Any]] | None,
    iou_threshold: float,
    max_detections: int = 300,
) -> NDArray[np.intp]:
    """Greedy NMS: the best box suppresses those that overlap it by more than the threshold, and so on.

    The result equals that of the plain one-box-at-a-time loop. Boxes are taken in blocks of descending
    score: each block is settled within itself, then its survivors suppress the rest in one operation,
    so memory and time grow with ``block * n``, not with ``n * n``.

    Args:
        boxes_xyxy: (n, 4), in any one coordinate system.
        scores: (n,).
        class_ids: (n,); boxes of different classes do not suppress each other. None compares all.
        iou_threshold: A box goes when its IoU with a better, kept one is *over* this, 0..1.
        max_detections: Keep at most this many.

    Returns:
        intp (k,) indices of the kept boxes by descending score; equal scores by lower index.

    Raises:
        ValueError: shapes differ, or a score is NaN.
    """
    scores = np.asarray(scores)
    boxes = np.asarray(boxes_xyxy, np.float64)
    if boxes.shape != (len(scores), 4) or (class_ids is not None and np.shape(class_ids) != scores.shape):
        shapes = (boxes.shape, scores.shape, None if class_ids is None else np.shape(class_ids))
        raise ValueError(f"shapes of boxes, scores and classes do not match: {shapes}")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    alive = np.argsort(-scores, kind="stable")
    boxes = boxes[alive]
    classes = None if class_ids is None else np.asarray(class_ids)[alive]
    kept: list[NDArray[np.intp]] = []
    n_kept = 0
    while len(alive) and n_kept < max_detections:
        suppresses = iou_matrix(boxes[:_BLOCK], boxes) > iou_threshold
        if classes is not None:
            suppresses &= classes[:_BLOCK, None] == classes[None, :]
        gone = np.zeros(len(alive), np.bool_)
        winners: list[int] = []
        for row in range(min(_BLOCK, len(alive))):
            if not gone[row]:
                winners.append(row)
                gone |= suppresses[row]
        kept.append(alive[winners])
        n_kept += len(winners)
        rest = ~gone
        rest[:_BLOCK] = False
        alive, boxes = alive[rest], boxes[rest]
        classes = None if classes is None else classes[rest]
    return np.concatenate(kept)[:max_detections] if kept else np.zeros(0, np.intp)
