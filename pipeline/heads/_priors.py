"""Prior boxes of SSDs: made as the networks were trained with them, from plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

__all__ = ["SSD300", "ULTRAFACE", "count_of", "priors_of"]

#: Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB, ``vision/ssd/config/fd_config.py``.
ULTRAFACE: dict[str, Any] = {
    "strides": [8, 16, 32, 64],
    "min_boxes": [[10, 16, 24], [32, 48], [64, 96], [128, 192, 256]],
}
#: Liu et al. 2016 (SSD300 on COCO), as the reference implementations in PyTorch write it down.
SSD300: dict[str, Any] = {
    "feature_maps": [38, 19, 10, 5, 3, 1],
    "steps": [8, 16, 32, 64, 100, 300],
    "min_sizes": [21, 45, 99, 153, 207, 261],
    "max_sizes": [45, 99, 153, 207, 261, 315],
    "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
}
_GRIDS = ("strides", "min_boxes")
_MAPS = ("feature_maps", "steps", "min_sizes", "max_sizes", "aspect_ratios")


def priors_of(what: Any, width: int, height: int, clip: bool, model: str) -> NDArray[np.float32]:
    """The prior boxes of a network.

    Args:
        what: Plain data in one of two forms, one entry per feature map, all in pixels of the input.
            ``strides`` and ``min_boxes``: a square of each size at the centre of each cell (UltraFace).
            ``feature_maps`` (cells on a side, or [columns, rows]), ``steps``, ``min_sizes``,
            ``max_sizes`` and ``aspect_ratios``: per cell a square of the smaller size, one of the geometric
            mean of both, and of each ratio a wide and a high box (Liu et al. 2016).
        width: Width of the model input in pixels.
        height: Height of the model input in pixels.
        clip: Cut centres and sizes to 0..1.
        model: Name of the model, for errors.

    Returns:
        float32 (n, 4) centre and size as shares of the input, feature map by feature map, row by row;
        read-only (cached).

    Raises:
        ModelError: the data are of neither form.
    """
    keys = set(what) if isinstance(what, Mapping) else set()
    if keys not in (set(_GRIDS), set(_MAPS)) or len({_length(part) for part in what.values()}) != 1:
        raise ModelError(
            f"the option priors of model {model!r} is not what prior boxes are made from",
            hint=f"give {' and '.join(_GRIDS)}, or {', '.join(_MAPS)}: lists with one entry a feature map",
        )
    try:
        return _made(json.dumps(what, sort_keys=True), width, height, clip)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelError(
            f"the option priors of model {model!r} cannot be used: {error}",
            hint="all sizes are numbers over 0, in pixels of the input",
        ) from error


def count_of(what: Mapping[str, Any], width: int, height: int) -> int:
    """How many prior boxes there are."""
    return len(_made(json.dumps(what, sort_keys=True), width, height, False))


def _length(part: Any) -> int:
    return len(part) if isinstance(part, list | tuple) and part else -1


@lru_cache(maxsize=16)
def _made(text: str, width: int, height: int, clip: bool) -> NDArray[np.float32]:
    what = json.loads(text)
    levels = _grids(what, width, height) if "strides" in what else _maps(what, width, height)
    priors = np.concatenate(levels)
    if not np.isfinite(priors).all() or float(priors[:, 2:].min()) <= 0:
        raise ValueError("a box without a size")
    result: NDArray[np.float32] = (np.clip(priors, 0, 1) if clip else priors).astype(np.float32)
    result.flags.writeable = False
    return result


def _grids(what: Mapping[str, Any], width: int, height: int) -> list[NDArray[np.float64]]:
    levels = []
    for stride, sizes in zip(what["strides"], what["min_boxes"], strict=True):
        cells = -(-width // stride), -(-height // stride)
        shapes = np.array([[size / width, size / height] for size in sizes])
        # Spread evenly over the frame, also where its size is no multiple of the stride.
        levels.append(_placed(cells, (1 / cells[0], 1 / cells[1]), shapes))
    return levels


def _maps(what: Mapping[str, Any], width: int, height: int) -> list[NDArray[np.float64]]:
    levels = []
    for cells, step, small, large, ratios in zip(*(what[key] for key in _MAPS), strict=True):
        columns, rows = cells if isinstance(cells, list) else (cells, cells)
        shapes = [(small, small), (np.sqrt(small * large),) * 2]
        for ratio in ratios:
            wide, narrow = small * np.sqrt(ratio), small / np.sqrt(ratio)
            shapes += [(wide, narrow), (narrow, wide)]
        pixels = np.array([width, height])
        levels.append(_placed((columns, rows), (step / width, step / height), np.array(shapes) / pixels))
    return levels


def _placed(
    cells: tuple[int, int], step: tuple[float, float], shapes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Boxes (n, 4) of all shapes at the centre of each cell; cells and step are along x and y."""
    rows, columns = np.mgrid[: cells[1], : cells[0]].reshape(2, -1)
    centres = (np.stack([columns, rows], axis=1) + 0.5) * step
    return np.hstack([np.repeat(centres, len(shapes), axis=0), np.tile(shapes, (len(centres), 1))])
