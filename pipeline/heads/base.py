"""What a head is, and the few steps that all heads share.

A head turns the raw outputs of one model family into `Detections`, a classifier into `Classes`: no session,
no I/O, no state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.messages import Classes, Detections, ModelSpec

__all__ = [
    "TOP_K",
    "Classifier",
    "Guess",
    "Head",
    "InputFormat",
    "Signature",
    "TensorInfo",
    "all_classes",
    "as_frame",
    "as_ids",
    "best_classes",
    "check_probabilities",
    "grid_counts",
    "grid_points",
    "image_input",
    "top_detections",
]

#: The best detections that a head hands on; NMS keeps far fewer.
TOP_K = 1000
#: Products and differences of a few such numbers stay within float32. Masked logits are lower (-3.4e38).
_GREATEST = 1e30
#: Pixels; areas of such boxes stay within float32. No box of an object is as far away.
_FARTHEST = 1e9
#: No class id is as high; the least number that int32 does not hold.
_TOO_MANY = 2**31


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a graph.

    Attributes:
        name: Its name.
        dtype: numpy dtype name (``float32``, ``uint8``, …).
        shape: Its dimensions; a name or None where the size is free.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Signature:
    """All that recognition looks at.

    Attributes:
        inputs: Inputs of the graph, in its order.
        outputs: Outputs of the graph, in its order.
        metadata: Key-value metadata of the model file.
        samples: What the outputs hold for one test picture, by name, with a leading 1; empty where nobody ran
            the graph. Ranges of values tell apart what shapes cannot: logits from probabilities, pixels from
            offsets.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Guess:
    """A family that fits a signature.

    Attributes:
        family: Key of ``pipeline.heads.HEADS``.
        overrides: Fields of `ModelSpec` that follow from it, by name.
        confidence: 0..1; below 0.5 a user should confirm it.
        why: What in the signature speaks for it.
        classes: How many classes it tells apart; 0 where the graph does not say.
        labels: Their names, where the layout itself settles them.
    """

    family: str
    overrides: Mapping[str, Any]
    confidence: float
    why: str
    classes: int = 0
    labels: tuple[str, ...] = ()


class Head(Protocol):
    """Decoder of one family of detectors."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode the outputs of one frame.

        Args:
            outputs: One array per output, in the order of ``spec.output_names``, each with a leading
                batch dimension of 1.
            spec: The model.
            confidence: Scores under this are left out.
            limit: At most so many detections, the best ones.

        Returns:
            Detections by descending score, before NMS where ``spec.nms_iou`` asks for it; boxes in pixels of
            the *model input*, not clipped.

        Raises:
            ModelError: the outputs do not have this family's layout, or hold NaN or infinity.
        """

    def recognise(self, signature: Signature) -> Guess | None:
        """Whether a graph with this signature is of this family, and what follows from it.

        Raises:
            ModelError: it says of itself that it does what nobody here can read (oriented boxes).
        """


class Classifier(Protocol):
    """Reader of one family of classifiers."""

    def classify(self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, limit: int) -> Classes:
        """The best classes of one frame.

        Args:
            outputs: As for `Head.decode`.
            spec: The model.
            limit: How many classes, at most.

        Returns:
            Classes by descending score, equal scores by lower id.

        Raises:
            ModelError: the outputs do not have this family's layout, or hold NaN or infinity.
        """

    def recognise(self, signature: Signature) -> Guess | None:
        """Whether a graph with this signature is of this family, and what follows from it."""


@dataclass(frozen=True)
class InputFormat:
    """The picture that a graph takes.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        dtype: ``uint8``, ``float32`` or ``float16``.
        layout: ``nhwc`` or ``nchw``.
    """

    width: int
    height: int
    dtype: str
    layout: str

    def overrides(self) -> dict[str, Any]:
        """The same as fields of `ModelSpec`."""
        return {
            "input_width": self.width,
            "input_height": self.height,
            "input_dtype": self.dtype,
            "input_layout": self.layout,
        }


def image_input(signature: Signature) -> InputFormat | None:
    """The format of the one input of a graph that is a colour picture of a fixed size; None without one.

    Inputs of other ranks (sizes, scale factors) may stand beside it; a batch axis may be missing.
    """
    found = [_picture_of(info) for info in signature.inputs]
    pictures = [picture for picture in found if picture is not None]
    return pictures[0] if len(pictures) == 1 else None


def _picture_of(info: TensorInfo) -> InputFormat | None:
    if len(info.shape) not in (3, 4) or info.dtype not in ("uint8", "float32", "float16"):
        return None
    batch = info.shape[0] if len(info.shape) == 4 else 1
    if isinstance(batch, int) and batch < 1:
        return None
    first, second, third = info.shape[-3:]
    layout = "nchw" if first == 3 else "nhwc" if third == 3 else None
    height, width = (second, third) if layout == "nchw" else (first, second)
    if layout is None or not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        return None
    return InputFormat(width, height, info.dtype, layout)


def grid_counts(width: int, height: int, strides: Sequence[int]) -> list[int]:
    """Cells of an anchor-free head per stride, for an input of ``width`` x ``height`` pixels."""
    return [-(-height // stride) * -(-width // stride) for stride in strides]


@lru_cache(maxsize=16)
def grid_points(
    width: int, height: int, strides: tuple[int, ...], offset: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reference points of an anchor-free head: row by row, stride after stride.

    Args:
        width: Width of the model input in pixels.
        height: Height of the model input in pixels.
        strides: Pixels per cell, in the order of the outputs.
        offset: Of the point inside its cell, in cells: 0 is the corner, 0.5 the centre.

    Returns:
        float32 (n, 2) points x, y in pixels, and float32 (n, 1) strides; both read-only (cached).
    """
    points, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)].reshape(2, -1)
        points.append((np.stack([columns, rows], axis=1) + offset) * stride)
        sizes.append(np.full((len(rows), 1), stride))
    result = np.concatenate(points).astype(np.float32), np.concatenate(sizes).astype(np.float32)
    for array in result:
        array.flags.writeable = False
    return result


def as_frame(
    output: NDArray[Any], what: str, shape: tuple[int | None, ...], spec: ModelSpec
) -> NDArray[np.float32]:
    """One output of one frame without its batch dimension, checked.

    Args:
        output: The array as it came from the model.
        what: Its name, for errors.
        shape: Expected shape without the batch dimension; None where any size will do.
        spec: The model, for errors.

    Returns:
        float32 of that shape, cut to ±1e30 so that no sum of a few overflows; a view where the output is
        float32 already and within.

    Raises:
        ModelError: the shape or type differs, or a number is not finite.
    """
    got = output.shape
    fits = len(got) == len(shape) + 1 and got[0] == 1
    fits = fits and all(want in (None, have) for want, have in zip(shape, got[1:], strict=True))
    if not fits or output.dtype not in (np.float32, np.float16):
        expected = ("1", *("any" if want is None else str(want) for want in shape))
        raise ModelError(
            f"output {what!r} of model {spec.name!r} is {output.dtype} {got}, "
            f"the {spec.family} head expects float ({', '.join(expected)})",
            hint="framewire models inspect FILE shows what the file holds and which families fit",
        )
    frame = np.asarray(output[0], np.float32)
    if not frame.size:
        return frame
    # The extremes carry every NaN and infinity, and cost a tenth of isfinite over all.
    low, high = float(frame.min()), float(frame.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ModelError(
            f"output {what!r} of model {spec.name!r} holds NaN or infinity",
            hint="the file is damaged, or float16 overflows: try the float32 file",
        )
    within = low >= -_GREATEST and high <= _GREATEST
    return frame if within else np.clip(frame, -_GREATEST, _GREATEST)


def as_ids(
    output: NDArray[Any], what: str, shape: tuple[int | None, ...], spec: ModelSpec
) -> NDArray[np.int64]:
    """Class ids of one frame without the batch dimension: whole numbers, whatever their dtype; checked.

    Args:
        output: The array as it came from the model: any integer or float dtype.
        what: Its name, for errors.
        shape: As for `as_frame`.
        spec: The model, for errors.

    Returns:
        int64 of that shape.

    Raises:
        ModelError: the shape differs, or a number is not whole, or more than 31 bits hold.
    """
    values = as_frame(output.astype(np.float32) if output.dtype.kind in "iu" else output, what, shape, spec)
    off = float(np.abs(values - np.rint(values)).max(initial=0.0))
    if off > 1e-3 or float(np.abs(values).max(initial=0.0)) >= _TOO_MANY:
        raise ModelError(
            f"output {what!r} of model {spec.name!r} holds numbers that are no class ids",
            hint="name the right family, or the outputs in their right order (output_names)",
        )
    return np.rint(values).astype(np.int64)


def check_probabilities(values: NDArray[np.float32], what: str, spec: ModelSpec) -> None:
    """Refuse scores outside 0..1: the model gives logits, or is of another family.

    Raises:
        ModelError: a value lies outside 0..1 by more than rounding.
    """
    # A float16 sigmoid may round a little past 1.
    if not values.size:
        return
    low, high = float(np.min(values)), float(np.max(values))
    if high > 1.001 or low < -0.001:
        raise ModelError(
            f"{what} of model {spec.name!r} range from {low:.3g} to {high:.3g}, not 0 to 1: "
            f"this is not the {spec.family} layout with its sigmoid",
            hint="export the model with the sigmoid inside, or name the right family",
        )


def best_classes(
    scores: NDArray[np.float32], confidence: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """The places whose best class reaches the confidence; one class a place.

    Args:
        scores: float32 (n, classes).
        confidence: Lowest score that counts.

    Returns:
        Rows (k,), their best scores float32 (k,) and class ids (k,), in the order of the rows.
    """
    best = scores.max(axis=1)
    rows = np.flatnonzero(best >= confidence)
    # argmax over a few rows only: over all of them it would cost more than the rest of the head.
    return rows, best[rows], scores[rows].argmax(axis=1)


def all_classes(
    scores: NDArray[np.float32], confidence: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.intp]]:
    """Every class that reaches the confidence; a place may give several.

    Args:
        scores: float32 (n, classes).
        confidence: Lowest score that counts.

    Returns:
        Rows (k,), scores float32 (k,) and class ids (k,), in the order of the rows, then classes.
    """
    likely = np.flatnonzero(scores.max(axis=1) >= confidence)
    picked = scores[likely]
    places, class_ids = np.nonzero(picked >= confidence)
    return likely[places], picked[places, class_ids], class_ids


def top_detections(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[Any],
    spec: ModelSpec,
    limit: int = TOP_K,
) -> Detections:
    """The best ``limit`` as `Detections`, by descending score, equal scores in the order given.

    Raises:
        ModelError: a box is not finite or absurdly far away, so the outputs were no boxes of this family; or
            a class has no label.
    """
    if limit == 1 and len(scores):
        order = np.array([scores.argmax()])
    else:
        order = np.argsort(-scores, kind="stable")[:limit]
    boxes, class_ids = boxes_xyxy[order], class_ids[order]
    if not len(order):
        return Detections.empty()
    least, most = int(class_ids.min()), int(class_ids.max())
    if least < 0 or (spec.labels and most >= len(spec.labels)):
        odd = least if least < 0 else most
        raise ModelError(
            f"model {spec.name!r} finds class {odd}, and has {len(spec.labels)} labels",
            hint='give all of them in its card: {"labels": ["person", ...]}, or name the right family',
        )
    farthest = float(np.abs(boxes).max())
    if not farthest <= _FARTHEST:  # NaN is not, either
        raise ModelError(
            f"model {spec.name!r} decodes to boxes that reach {farthest:.4g} pixels as {spec.family}",
            hint="name the right family for this file",
        )
    return Detections(boxes, np.minimum(scores[order], np.float32(1.0)), class_ids)
