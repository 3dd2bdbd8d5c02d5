"""Box geometry: the only IoU of the package, clipping and format conversions.

A function's name carries the format. ``xyxy`` is left, top, right, bottom with exclusive right and
bottom, so that a box's width is ``x2 - x1``; ``cxcywh`` is centre and size; ``xywh`` is left, top and
size. Arrays are (n, 4), any float or integer dtype; the unit is the caller's (pixels nearly always).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Boxes",
    "area",
    "clip_xyxy",
    "cxcywh_to_xyxy",
    "iou_matrix",
    "normalize_xyxy",
    "xywh_to_xyxy",
    "xyxy_to_cxcywh",
    "xyxy_to_xywh",
]

Boxes = NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def area(boxes_xyxy: Boxes) -> NDArray[np.float64]:
    """Areas of boxes.

    Args:
        boxes_xyxy: (n, 4).

    Returns:
        float64 (n,); 0 for a box whose right or bottom lies before its left or top.
    """
    boxes = np.asarray(boxes_xyxy, np.float64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def iou_matrix(a_xyxy: Boxes, b_xyxy: Boxes) -> NDArray[np.float64]:
    """Intersection over union of every box in ``a`` with every box in ``b``.

    Args:
        a_xyxy: (n, 4).
        b_xyxy: (m, 4), in the same coordinates.

    Returns:
        float64 (n, m), 0..1. A box without area has an IoU of 0 with everything, itself included.
    """
    a = np.asarray(a_xyxy, np.float64)
    b = np.asarray(b_xyxy, np.float64)
    # Column by column and in place: an (n, m, 2) temporary costs twice the time.
    width = np.minimum(a[:, 2, None], b[None, :, 2])
    width -= np.maximum(a[:, 0, None], b[None, :, 0])
    np.maximum(width, 0.0, out=width)
    height = np.minimum(a[:, 3, None], b[None, :, 3])
    height -= np.maximum(a[:, 1, None], b[None, :, 1])
    np.maximum(height, 0.0, out=height)
    intersection = width
    intersection *= height
    union = np.add(area(a)[:, None], area(b)[None, :], out=height)
    union -= intersection
    # Without a union there is no intersection either: 0 / 1.
    union[union <= 0.0] = 1.0
    intersection /= union
    # Rounding may carry near-equal boxes an ulp past 1.
    return np.minimum(intersection, 1.0, out=intersection)


def clip_xyxy(boxes_xyxy: Boxes, width: float, height: float) -> NDArray[np.float32]:
    """Boxes cut to the frame ``0..width``, ``0..height``.

    Args:
        boxes_xyxy: (n, 4).
        width: Width of the frame, same unit as the boxes.
        height: Height of the frame.

    Returns:
        float32 (n, 4), a new array. A box wholly outside becomes one without area on the edge.
    """
    limits = np.array([width, height, width, height], np.float32)
    return np.asarray(np.clip(np.asarray(boxes_xyxy, np.float32), np.float32(0.0), limits))


def normalize_xyxy(boxes_xyxy: Boxes, width: float, height: float) -> NDArray[np.float32]:
    """Boxes divided by the frame's size, so that 1 is its right or bottom edge.

    Args:
        boxes_xyxy: (n, 4) in pixels.
        width: Width of the frame in pixels, over 0.
        height: Height of the frame in pixels, over 0.

    Returns:
        float32 (n, 4).

    Raises:
        ValueError: the frame has no area.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"cannot normalise boxes to a frame of {width}x{height}")
    return (np.asarray(boxes_xyxy, np.float64) / (width, height, width, height)).astype(np.float32)


def xyxy_to_cxcywh(boxes_xyxy: Boxes) -> NDArray[np.float32]:
    """Corners (n, 4) to centre and size, float32 (n, 4)."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    sizes = boxes[:, 2:] - boxes[:, :2]
    return np.hstack([boxes[:, :2] + sizes / 2, sizes]).astype(np.float32)


def cxcywh_to_xyxy(boxes_cxcywh: Boxes) -> NDArray[np.float32]:
    """Centre and size (n, 4) to corners, float32 (n, 4)."""
    boxes = np.asarray(boxes_cxcywh, np.float64)
    half = boxes[:, 2:] / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half]).astype(np.float32)


def xyxy_to_xywh(boxes_xyxy: Boxes) -> NDArray[np.float32]:
    """Corners (n, 4) to left, top and size, float32 (n, 4); COCO's format."""
    boxes = np.asarray(boxes_xyxy, np.float64)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).astype(np.float32)


def xywh_to_xyxy(boxes_xywh: Boxes) -> NDArray[np.float32]:
    """Left, top and size (n, 4) to corners, float32 (n, 4)."""
    boxes = np.asarray(boxes_xywh, np.float64)
    return np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(np.float32)
