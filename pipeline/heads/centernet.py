"""CenterNet (xingyizhou/CenterNet, arXiv 1904.07850): objects as peaks of a heat map.

Three outputs of the same size, in cells of ``stride`` pixels: a heat map per class (1, classes, h, w), sizes
(1, 2, h, w) as width and height, and offsets (1, 2, h, w) of the centre in its cell, along x and y. A cell
whose heat no neighbour in its 3x3 surroundings exceeds is an object: centre = (cell + offset) * stride. No
NMS. The stride follows from the shapes. Input as published: BGR, / 255, with the means and standard
deviations of COCO, aspect kept, centred, padded with black.

Options of the spec:

- ``scores``: ``sigmoid`` (the heat is logits, as the network gives it; the default) or ``probabilities``;
- ``sizes``: ``cells`` (the default) or ``pixels``, the unit of the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._options import one_of
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    TensorInfo,
    as_frame,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = ["CenternetHead"]

_SCORES = ("sigmoid", "probabilities")
_SIZES = ("cells", "pixels")
_FLOATS = ("float32", "float16")
#: ``ctdet`` in the reference's ``opts.py``: COCO's mean and std, blue first, times 255.
_INPUT: dict[str, Any] = {
    "channels": "bgr",
    "mean": (104.01, 113.985, 119.85),
    "std": (73.695, 69.87, 70.89),
    "letterbox": "center",
    "pad_value": 0,
    "nms_iou": None,
}
#: Names of heat map, sizes and offsets in exports of CenterNet and its kin.
_NAMES = (("hm", "heat", "heatmap"), ("wh", "size", "sizes"), ("reg", "off", "offset", "offsets"))
_STRIDES = (2, 4, 8)


class CenternetHead:
    """Decoder of heat map, sizes and offsets, in this order; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) != 3:
            raise ModelError(
                f"model {spec.name!r} gives {len(outputs)} outputs, the centernet head expects 3",
                hint="name heat map, sizes and offsets in its card: output_names",
            )
        names = spec.output_names or ("heat map", "sizes", "offsets")
        heat = as_frame(outputs[0], names[0], (None, None, None), spec)
        cells = heat.shape[1:]
        sizes = as_frame(outputs[1], names[1], (2, *cells), spec)
        offsets = as_frame(outputs[2], names[2], (2, *cells), spec)
        stride = _stride(cells, spec)
        class_ids, ys, xs, scores = _peaks(heat, one_of(spec, "scores", _SCORES), spec, confidence)
        if len(class_ids) and class_ids.max() >= max(len(spec.labels), 1):
            raise ModelError(
                f"model {spec.name!r} finds class {class_ids.max()}, and has {len(spec.labels)} labels",
                hint='give all of them in its card: {"labels": ["person", ...]}',
            )
        centres = (np.stack([xs, ys], axis=1) + offsets[:, ys, xs].T) * np.float32(stride)
        scale = stride if one_of(spec, "sizes", _SIZES) == "cells" else 1.0
        # A regression may fall a little below 0 where it is unsure; a box has no negative side.
        half = np.maximum(sizes[:, ys, xs].T, 0) * np.float32(scale / 2)
        return top_detections(np.hstack([centres - half, centres + half]), scores, class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """Three maps of a size, one with a channel per class, two with two."""
        picture = image_input(signature)
        if picture is None or picture.layout != "nchw" or len(signature.inputs) != 1:
            return None
        maps = [o for o in signature.outputs if len(o.shape) == 4 and o.dtype in _FLOATS]
        found, named = _parts(signature, maps)
        if found is None:
            return None
        heat = found[0]
        classes, height, width = heat.shape[1:]
        if not isinstance(classes, int) or not isinstance(height, int) or not isinstance(width, int):
            return None
        if not any((width * s, height * s) == (picture.width, picture.height) for s in _STRIDES):
            return None
        sample = signature.samples.get(heat.name)
        after = sample is not None and sample.size > 0 and sample.min() >= 0 and sample.max() <= 1
        overrides = picture.overrides() | _INPUT
        overrides |= {
            "output_names": tuple(info.name for info in found),
            "options": {"scores": _SCORES[int(after)]},
        }
        confidence = (0.9 if named else 0.7) - (0.1 if sample is None else 0.0)
        why = f"heat maps of {classes} classes, sizes and offsets in cells of {picture.width // width} pixels"
        return Guess("centernet", overrides, round(confidence, 2), why, classes)


def _stride(cells: tuple[int, ...], spec: ModelSpec) -> int:
    height, width = cells
    stride = spec.input_width // width if width else 0
    if stride < 1 or (width * stride, height * stride) != (spec.input_width, spec.input_height):
        raise ModelError(
            f"model {spec.name!r} gives maps of {width}x{height} cells, which do not divide its input of "
            f"{spec.input_width}x{spec.input_height} pixels",
            hint="name the right family for this file",
        )
    return stride


def _peaks(
    heat: NDArray[np.float32], kind: str, spec: ModelSpec, confidence: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Class ids, rows, columns and scores of the cells that no neighbour exceeds, in that order."""
    floor = confidence
    if kind == "sigmoid":
        # A little less, for rounding; the scores themselves decide below.
        floor = -math.inf if confidence <= 0 else math.log(confidence / max(1 - confidence, 1e-9)) - 1e-3
    else:
        check_probabilities(heat, "heat map values", spec)
    # A border that no cell is below, so that a neighbour is a step in the flat map.
    around = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    flat, width = around.reshape(-1), around.shape[2]
    # Only cells that are hot enough are compared, and each step leaves fewer: a pooled copy costs far more.
    places = np.flatnonzero(flat >= floor) if floor > -math.inf else np.flatnonzero(np.isfinite(flat))
    for step in (-1, 1, -width, width, -width - 1, -width + 1, width - 1, width + 1):
        places = places[flat[places + step] <= flat[places]]
    class_ids, ys, xs = (index for index in np.unravel_index(places, around.shape))
    ys, xs, scores = ys - 1, xs - 1, flat[places]
    if kind == "sigmoid":
        scores = np.asarray(1 / (1 + np.exp(-np.clip(scores, -80, 80))), np.float32)
    hot = scores >= confidence
    return class_ids[hot], ys[hot], xs[hot], scores[hot]


def _parts(signature: Signature, maps: list[TensorInfo]) -> tuple[list[TensorInfo] | None, bool]:
    """Heat map, sizes and offsets, and whether names say so."""
    by_name = {info.name.lower(): info for info in maps}
    named = [next((by_name[name] for name in names if name in by_name), None) for names in _NAMES]
    found = [info for info in named if info is not None]
    if len(found) == 3:
        return (found if _fit(found) else None), True
    pairs = [info for info in maps if info.shape[1] == 2]
    heats = [info for info in maps if info.shape[1] != 2]
    if len(signature.outputs) != 3 or len(pairs) != 2 or len(heats) != 1:
        return None, False
    sizes, offsets = pairs
    if _are_offsets(signature, sizes) and not _are_offsets(signature, offsets):
        sizes, offsets = offsets, sizes
    found = [heats[0], sizes, offsets]
    return (found if _fit(found) else None), False


def _fit(found: list[TensorInfo]) -> bool:
    heat, sizes, offsets = (info.shape for info in found)
    return sizes[1] == offsets[1] == 2 and heat[2:] == sizes[2:] == offsets[2:]


def _are_offsets(signature: Signature, info: TensorInfo) -> bool:
    """Whether a map holds places in a cell, 0 to 1: sizes of objects in noise go beyond."""
    sample = signature.samples.get(info.name)
    return sample is not None and sample.size > 0 and float(sample.min()) > -0.5 and float(sample.max()) < 1.5
