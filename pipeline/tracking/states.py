"""What a track's filter follows of a box: four coordinates, and what their noise is measured in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["XYAH", "XYSR", "XYWH", "BoxState"]

Floats = NDArray[np.float64]

#: Smallest side of a box in pixels, so that what is divided by it stays finite.
_SMALLEST = 1e-2


@dataclass(frozen=True, slots=True)
class BoxState:
    """Four coordinates that stand for a box; the first two are its centre.

    Attributes:
        moving: Which of them have a velocity.
        of_boxes: Boxes xyxy, float64 (n, 4), to coordinates (n, 4).
        to_boxes: Coordinates to boxes xyxy.
        units: Coordinates to what their noise is measured in, (n, 4), so that a large object may wander by
            more pixels than a small one.
    """

    moving: tuple[bool, bool, bool, bool]
    of_boxes: Callable[[Floats], Floats]
    to_boxes: Callable[[Floats], Floats]
    units: Callable[[Floats], Floats]


def _centres_sizes(boxes: Floats) -> tuple[Floats, Floats]:
    sizes = np.maximum(boxes[:, 2:] - boxes[:, :2], _SMALLEST)
    return (boxes[:, :2] + boxes[:, 2:]) * 0.5, sizes


def _boxes(centres: Floats, sizes: Floats) -> Floats:
    half = sizes * 0.5
    return np.concatenate([centres - half, centres + half], axis=1)


def _xywh(boxes: Floats) -> Floats:
    return np.concatenate(_centres_sizes(boxes), axis=1)


def _xywh_boxes(state: Floats) -> Floats:
    return _boxes(state[:, :2], np.maximum(state[:, 2:], _SMALLEST))


def _xywh_units(state: Floats) -> Floats:
    return np.maximum(state[:, [2, 3, 2, 3]], 1.0)


def _xyah(boxes: Floats) -> Floats:
    centres, sizes = _centres_sizes(boxes)
    sizes[:, 0] /= sizes[:, 1]
    return np.concatenate([centres, sizes], axis=1)


def _xyah_boxes(state: Floats) -> Floats:
    sizes = np.maximum(state[:, 2:], _SMALLEST)
    sizes[:, 0] *= sizes[:, 1]
    return _boxes(state[:, :2], sizes)


def _xyah_units(state: Floats) -> Floats:
    return np.maximum(state[:, [3, 3, 2, 3]], (1.0, 1.0, _SMALLEST, 1.0))


def _xysr(boxes: Floats) -> Floats:
    centres, sizes = _centres_sizes(boxes)
    width, height = sizes.T
    return np.concatenate([centres, np.stack([width * height, width / height], axis=1)], axis=1)


def _xysr_boxes(state: Floats) -> Floats:
    area, ratio = np.maximum(state[:, 2:], _SMALLEST * _SMALLEST).T
    width = np.sqrt(area * ratio)
    return _boxes(state[:, :2], np.stack([width, area / width], axis=1))


def _xysr_units(state: Floats) -> Floats:
    area = np.maximum(state[:, 2], 1.0)
    side = np.sqrt(area)
    return np.stack([side, side, area, np.maximum(state[:, 3], _SMALLEST)], axis=1)


#: Centre, width and height: BoT-SORT, section 3.1.
XYWH = BoxState((True, True, True, True), _xywh, _xywh_boxes, _xywh_units)
#: Centre, width / height, and height: DeepSORT, and ByteTrack after it.
XYAH = BoxState((True, True, True, True), _xyah, _xyah_boxes, _xyah_units)
#: Centre, area, and width / height, which does not change: SORT and OC-SORT.
XYSR = BoxState((True, True, True, False), _xysr, _xysr_boxes, _xysr_units)
