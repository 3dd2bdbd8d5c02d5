"""What the YOLO heads share: their inputs, their tables of places, and what metadata and samples tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads.base import InputFormat, Signature, TensorInfo, as_frame, grid_counts
from pipeline.messages import ModelSpec
from pipeline.vision.boxes import cxcywh_to_xyxy

__all__ = [
    "FLOATS",
    "Units",
    "boxes_of",
    "cells_of",
    "class_column",
    "class_count",
    "name_of",
    "one_output",
    "rgb_input",
    "sample_of",
    "scaled",
    "table_of",
    "task_of",
    "units_of",
    "yolox_input",
]

FLOATS = ("float32", "float16")
#: Pixels of the input, shares of it (0..1), offsets and logarithms, or nothing that tells.
Units = Literal["pixels", "shares", "raw", ""]

_GRIDS = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
_PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
_UNIT: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}


def rgb_input(picture: InputFormat, pad_value: int = 114) -> dict[str, Any]:
    """RGB 0..1, letterboxed in the middle: fields of `ModelSpec`; uint8 inputs are scaled in the graph."""
    scale = _PLAIN if picture.dtype == "uint8" else _UNIT
    return picture.overrides() | scale | {"channels": "rgb", "letterbox": "center", "pad_value": pad_value}


def yolox_input(picture: InputFormat) -> dict[str, Any]:
    """BGR 0..255 at the top left, padded with 114, as Megvii-BaseDetection/YOLOX prepares it."""
    placed = {"channels": "bgr", "letterbox": "topleft", "pad_value": 114}
    return picture.overrides() | _PLAIN | placed


def cells_of(picture: InputFormat) -> dict[int, tuple[int, ...]]:
    """Numbers of cells that heads of these families have for such an input, and their strides."""
    return {sum(grid_counts(picture.width, picture.height, strides)): strides for strides in reversed(_GRIDS)}


def table_of(signature: Signature) -> tuple[TensorInfo, int] | None:
    """The one float output (batch, n, columns) of known sizes, and how many mask prototypes stand beside it.

    Maps of rank 5 beside it are the same boxes once more, undecoded, as old exports of YOLOv5 give them;
    one of rank 4 holds the prototypes of segmentation masks. None where there is anything else.
    """
    tables = [one for one in signature.outputs if len(one.shape) == 3 and one.dtype in FLOATS]
    others = [one for one in signature.outputs if one not in tables]
    masks = [one for one in others if len(one.shape) == 4]
    if len(tables) != 1 or len(masks) > 1 or any(len(one.shape) not in (4, 5) for one in others):
        return None
    if masks and 1 in masks[0].shape[2:]:
        return None  # boxes (1, n, 1, 4), as of YOLOv4, are no picture
    if not all(isinstance(size, int) for size in tables[0].shape[1:]):
        return None
    count = masks[0].shape[1] if masks else 0
    return (tables[0], count) if isinstance(count, int) else None


def sample_of(signature: Signature, output: TensorInfo) -> NDArray[np.float32] | None:
    """What one frame of an output held for the test picture, float32 without its batch dimension."""
    sample = signature.samples.get(output.name)
    if sample is None or sample.ndim != len(output.shape) or not sample.size:
        return None
    values = np.asarray(sample[0] if sample.ndim == 3 else sample, np.float32)
    return values if values.size and bool(np.isfinite(values).all()) else None


def units_of(boxes_cxcywh: NDArray[np.float32] | None, picture: InputFormat) -> Units:
    """In what the boxes of all places are, by their values for a test picture.

    Decoded centres are spread over the input, for each cell predicts near itself, and sizes are never
    negative. Undecoded ones are offsets of a few cells, and logarithms of sizes, some of which are negative.

    Args:
        boxes_cxcywh: float32 (n, 4) of all places; None without a test picture.
        picture: The input.
    """
    if boxes_cxcywh is None or len(boxes_cxcywh) < 4:
        return ""
    low, high = np.percentile(boxes_cxcywh[:, :2], (5, 95), axis=0)
    if float(boxes_cxcywh[:, 2:].min()) < -1e-3:
        return "raw" if float(np.median(np.abs(boxes_cxcywh))) < 16 else ""
    spread = (high - low) / (picture.width, picture.height)
    if float(spread.min()) > 0.5 and float(spread.max()) < 1.5:
        return "pixels"
    spread = high - low
    if float(spread.min()) > 0.5 and float(spread.max()) < 1.5:
        return "shares"
    return ""


def task_of(metadata: Mapping[str, str]) -> str:
    """``detect``, ``segment``, ``pose``, ``obb``, … in a file that ultralytics wrote; empty in any other."""
    written = "ultralytics" in (metadata.get("author", "") + metadata.get("description", "")).lower()
    known = written or ("stride" in metadata and "names" in metadata)
    return metadata.get("task", "") if known else ""


def class_count(spec: ModelSpec, columns: int) -> int:
    """How many classes a table has: the option, or all the columns that are left.

    Raises:
        ModelError: the option is no number of columns that the output has.
    """
    count = spec.options.get("classes") or columns
    if not isinstance(count, int) or not 0 < count <= columns:
        raise ModelError(
            f"model {spec.name!r} has {columns} columns for classes, its option classes says {count!r}",
            hint=f"leave options.classes out of its card, or write a number from 1 to {columns}",
        )
    return count


def one_output(
    outputs: Sequence[NDArray[Any]], shape: tuple[int | None, ...], spec: ModelSpec
) -> NDArray[np.float32]:
    """The one output of a frame, checked as by `as_frame`.

    Raises:
        ModelError: there is not exactly one, or it is not of that shape.
    """
    if len(outputs) != 1:
        raise ModelError(
            f"model {spec.name!r} gives {len(outputs)} outputs, the {spec.family} head reads 1",
            hint='name the one to read in its card: {"output_names": ["NAME"]}',
        )
    return as_frame(outputs[0], name_of(spec, 0), shape, spec)


def name_of(spec: ModelSpec, index: int) -> str:
    """Name of an output for errors: its number where the spec names none."""
    return spec.output_names[index] if index < len(spec.output_names) else str(index)


def boxes_of(boxes_cxcywh: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Decoded centres and sizes to corners in pixels of the input, float32 (k, 4).

    Args:
        boxes_cxcywh: float32 (k, 4), in pixels, or in shares of the input with the option ``normalized``.
        spec: The model.

    A regression without bounds may give a negative size where nothing is; such a box has no area. Where many
    are negative they are no sizes.

    Raises:
        ModelError: over a quarter of the sizes are negative, so the boxes are not decoded.
    """
    sizes = boxes_cxcywh[:, 2:]
    if len(sizes) and float(sizes.min()) < 0:
        if float((sizes < 0).mean()) > 0.25:
            raise ModelError(
                f"model {spec.name!r} gives boxes of negative size: they are not decoded, "
                f"as the {spec.family} head expects",
                hint="name the right family in its card (yolox has offsets and logarithms)",
            )
        boxes_cxcywh = np.hstack([boxes_cxcywh[:, :2], np.maximum(sizes, 0)])
    return scaled(cxcywh_to_xyxy(boxes_cxcywh), spec)


def scaled(boxes_xyxy: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Corners in pixels of the input, from shares of it where the option ``normalized`` says so."""
    if not spec.options.get("normalized"):
        return boxes_xyxy
    size = (spec.input_width, spec.input_height)
    return boxes_xyxy * np.array(size * 2, np.float32)


def class_column(values: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.int64]:
    """Class ids that stand as floats in a table, int64 (k,).

    Raises:
        ModelError: one is not whole, or negative, or more than 31 bits hold.
    """
    ids = np.rint(values)
    if len(ids) and (float(np.abs(values - ids).max()) > 1e-3 or not 0 <= ids.min() <= ids.max() < 2**31):
        raise ModelError(
            f"model {spec.name!r} has numbers that are no class ids where the {spec.family} head reads them",
            hint="name the right family in its card: others order their columns differently",
        )
    return ids.astype(np.int64)
