"""Faster and Mask R-CNN, and whatever else gives finished boxes in pixels of the input; in three layouts.

*Lists* (torchvision's detectors: Faster and Mask R-CNN, RetinaNet, FCOS, SSD; Detectron2; FasterRCNN-10 and
MaskRCNN-10 of the ONNX model zoo): boxes (n, 4) ``x1, y1, x2, y2``, class ids (n,) and scores (n,), with or
without a batch axis. torchvision's ids are COCO's 1 to 90, the zoo's 1 to 80, both with 0 for the
background; Detectron2's count from 0.

*Detections* (MMDeploy, MMDetection): (1, n, 5) ``x1, y1, x2, y2, score`` and class ids (1, n) from 0.

*Rows* (PaddleDetection): (n, 6) ``class, score, x1, y1, x2, y2`` and their count, class ids from 0. The graph
divides boxes by its input ``scale_factor``, which is fed 1, and clips them to ``im_shape``, which is fed the
input's size, so that they are in pixels of the input.

The number of rows differs from picture to picture. Masks are not read. The aspect is kept, at the top left,
and the padding is about the mean colour, for which these models pad after subtracting it. Input of
torchvision: RGB, / 255; of the zoo: BGR less its mean; of Detectron2: BGR 0..255; of the others: RGB with
ImageNet's mean and std. Where the metadata name no classes they are COCO's.

Options of the spec: ``first_class``, the id by which the graph calls the first label (0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._options import first_class_of
from pipeline.heads._rcnn_guess import guess_detections, guess_lists, guess_rows
from pipeline.heads._rows import Rows, rows_of, select
from pipeline.heads.base import TOP_K, Guess, Signature, as_frame, as_ids, image_input
from pipeline.messages import Detections, ModelSpec

__all__ = ["RcnnHead"]

#: Boxes are clipped to the input by the graph; those that reach this many times its size are none.
_FARTHEST = 4.0
_BOX_AND_SCORE, _ROW = 5, 6


class RcnnHead:
    """Decoder of the three layouts; see the module. Columns tell them apart: 4, 5 or 6."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        first_class = first_class_of(spec)
        columns = max((output.shape[2] for output in outputs if output.ndim == 3), default=0)
        if columns == _ROW:
            found = _rows(outputs, spec)
        elif columns == _BOX_AND_SCORE:
            found = _detections(outputs, spec)
        else:
            found = rows_of(outputs, spec)
        detections = select(found, spec, confidence, limit, first_class)
        _check_pixels(detections, spec)
        return detections

    def recognise(self, signature: Signature) -> Guess | None:
        """Finished boxes in pixels in one of the layouts; the number of their rows is not looked at."""
        picture = image_input(signature)
        if picture is None or picture.layout != "nchw" or picture.dtype == "uint8":
            return None
        if len(signature.inputs) > 1:
            return guess_rows(signature, picture)
        return guess_detections(signature, picture) or guess_lists(signature, picture)


def _rows(outputs: Sequence[NDArray[Any]], spec: ModelSpec) -> Rows:
    """``class, score, x1, y1, x2, y2``, and maybe their count, which the padding makes needless."""
    at = [index for index, output in enumerate(outputs) if output.ndim == 3]
    if len(at) != 1 or len(outputs) > 2:
        raise _unlike(outputs, spec, "rows (1, n, 6) and their count")
    name = spec.output_names[at[0]] if spec.output_names else str(at[0])
    rows = as_frame(outputs[at[0]], name, (None, _ROW), spec)
    # One row of class -1 is how older exports say that nothing was found.
    rows = rows[rows[:, 0] >= 0]
    return Rows(rows[:, 2:], rows[:, 1], as_ids(rows[None, :, 0], name, (len(rows),), spec))


def _detections(outputs: Sequence[NDArray[Any]], spec: ModelSpec) -> Rows:
    """``x1, y1, x2, y2, score`` and class ids."""
    by_rank = {output.ndim: index for index, output in enumerate(outputs)}
    if len(outputs) != 2 or set(by_rank) != {2, 3}:
        raise _unlike(outputs, spec, "boxes with their scores (1, n, 5) and class ids (1, n)")
    names = spec.output_names or ("0", "1")
    boxes = as_frame(outputs[by_rank[3]], names[by_rank[3]], (None, _BOX_AND_SCORE), spec)
    ids = as_ids(outputs[by_rank[2]], names[by_rank[2]], (len(boxes),), spec)
    return Rows(boxes[:, :4], boxes[:, 4], ids)


def _check_pixels(found: Detections, spec: ModelSpec) -> None:
    farthest = float(np.abs(found.boxes_xyxy).max(initial=0.0))
    shares = len(found) > 0 and farthest <= 1
    if shares or farthest > _FARTHEST * max(spec.input_width, spec.input_height):
        raise ModelError(
            f"boxes of model {spec.name!r} reach {farthest:.4g}, "
            f"where pixels of an input of {spec.input_width}x{spec.input_height} belong",
            hint='boxes as shares of the input are those of the family ssd: {"family": "ssd"} in its card'
            if shares
            else "name the right family for this file",
        )


def _unlike(outputs: Sequence[NDArray[Any]], spec: ModelSpec, expected: str) -> ModelError:
    seen = ", ".join(str(output.shape) for output in outputs)
    return ModelError(
        f"outputs of model {spec.name!r} are {seen}; the rcnn head expects {expected}",
        hint="name them in its card: output_names",
    )
