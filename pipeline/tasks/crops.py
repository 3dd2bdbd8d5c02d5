"""Crops of objects for second models, without a copy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.tensor import Plane

__all__ = ["crop_of"]


def crop_of(planes: Sequence[Plane], box_xyxy: NDArray[np.float32], margin: float) -> tuple[Plane, ...]:
    """Views of the planes around a box; left and top even, so that chroma is cut between samples.

    Args:
        planes: The frame, as for `pipeline.vision.tensor.TensorFiller.fill`.
        box_xyxy: float32 (4,) in pixels of the frame; what reaches beyond it is cut off.
        margin: The crop is larger than the box by this share of its size, on each side.

    Returns:
        As many planes, at least a pixel wide and high.
    """
    height, width = planes[0].shape[:2]
    x1, y1, x2, y2 = box_xyxy.tolist()
    more_x, more_y = (x2 - x1) * margin, (y2 - y1) * margin
    left = min(max(int(x1 - more_x), 0), width - 1) // 2 * 2
    top = min(max(int(y1 - more_y), 0), height - 1) // 2 * 2
    right = min(max(math.ceil(x2 + more_x), left + 1), width)
    bottom = min(max(math.ceil(y2 + more_y), top + 1), height)
    first = planes[0][top:bottom, left:right]
    half = (slice(top // 2, (bottom + 1) // 2), slice(left // 2, (right + 1) // 2))
    return (first, *(plane[half] for plane in planes[1:]))
