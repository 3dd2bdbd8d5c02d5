"""Where a source frame lies in the model input, and the exact way there and back for boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import LetterboxMap
from pipeline.vision.boxes import Boxes, clip_xyxy

__all__ = ["Mode", "Placement", "Rounding", "plan", "rounding_of", "to_input", "to_source"]

Mode = Literal["center", "topleft", "stretch", "crop"]
Rounding = Literal["floor", "round"]


@dataclass(frozen=True)
class Placement:
    """The picture inside the model input.

    Attributes:
        map: The same as a map for boxes. Its scales are placed size over source size per axis, so that it
            inverts the resize exactly even though the placed size is a whole number of pixels; for
            ``topleft`` both are the one ratio by which YOLOX's reference code divides, so that boxes equal
            the reference's (the two differ by the fraction of a pixel that its ``int()`` cuts off).
        x: Left edge of the picture in the input, pixels.
        y: Top edge.
        width: Width of the picture in the input, pixels, at least 1.
        height: Height of the picture in the input, at least 1.
        region: Which part of the source is placed: left, top, width and height in pixels, the left and top
            even, so that it cuts chroma planes between samples; None for all of it.
    """

    map: LetterboxMap
    x: int
    y: int
    width: int
    height: int
    region: tuple[int, int, int, int] | None = None


def rounding_of(mode: Mode) -> Rounding:
    """How the reference code of the models with this letterbox rounds the placed size.

    YOLOX places at the top left and truncates (Megvii-BaseDetection/YOLOX, ``preproc``: ``int(h * r)``);
    the centring references round.
    """
    return "floor" if mode == "topleft" else "round"


def plan(
    width: int,
    height: int,
    input_width: int,
    input_height: int,
    mode: Mode,
    rounding: Rounding | None = None,
    crop: float = 1.0,
) -> Placement:
    """Place a source frame in a model input.

    Args:
        width: Source width in pixels, at least 1.
        height: Source height in pixels, at least 1.
        input_width: Width of the model input in pixels, at least 1.
        input_height: Height of the model input in pixels, at least 1.
        mode: ``center`` and ``topleft`` keep the aspect and leave padding; ``stretch`` fills the input;
            ``crop`` fills it with the middle of the frame, aspect kept.
        rounding: How the placed size becomes whole; None takes `rounding_of` the mode.
        crop: For ``crop``: share of the frame's shorter side that is seen, over 0, at most 1.

    Returns:
        The placement; never outside the input and never without a pixel, however narrow the source.

    Raises:
        ValueError: a size is below 1, or the mode or rounding is unknown.
    """
    if min(width, height, input_width, input_height) < 1:
        raise ValueError(f"cannot place a {width}x{height} frame in a {input_width}x{input_height} input")
    if mode not in ("center", "topleft", "stretch", "crop"):
        raise ValueError(f"letterbox mode {mode!r} is none of center, topleft, stretch, crop")
    if not 0 < crop <= 1:
        raise ValueError(f"a crop of {crop} is no share over 0, at most 1")
    rounding = rounding or rounding_of(mode)
    if rounding not in ("floor", "round"):
        raise ValueError(f"rounding {rounding!r} is neither floor nor round")
    if mode == "crop":
        return _middle(width, height, input_width, input_height, crop)
    placed_w, placed_h = input_width, input_height
    ratio = min(input_height / height, input_width / width)
    if mode != "stretch":
        whole = int if rounding == "floor" else round
        # As the references compute it, in floating point: bit-equal sizes matter more than a last pixel.
        placed_w = min(max(whole(width * ratio), 1), input_width)
        placed_h = min(max(whole(height * ratio), 1), input_height)
    x = y = 0
    if mode == "center":
        x, y = (input_width - placed_w) // 2, (input_height - placed_h) // 2
    scale_x, scale_y = placed_w / width, placed_h / height
    if mode == "topleft" and min(width * ratio, height * ratio) >= 1:
        scale_x = scale_y = ratio
    mapping = LetterboxMap(scale_x, scale_y, float(x), float(y), width, height)
    return Placement(mapping, x, y, placed_w, placed_h)


def _middle(width: int, height: int, input_width: int, input_height: int, crop: float) -> Placement:
    """The middle of the frame, as wide and as high as the input shows it."""
    ratio = max(input_width / width, input_height / height) / crop
    seen_w = min(max(round(input_width / ratio), 1), width)
    seen_h = min(max(round(input_height / ratio), 1), height)
    x, y = (width - seen_w) // 4 * 2, (height - seen_h) // 4 * 2
    scale_x, scale_y = input_width / seen_w, input_height / seen_h
    mapping = LetterboxMap(scale_x, scale_y, -x * scale_x, -y * scale_y, width, height)
    return Placement(mapping, 0, 0, input_width, input_height, (x, y, seen_w, seen_h))


def to_source(boxes_input_xyxy: Boxes, letterbox: LetterboxMap) -> NDArray[np.float32]:
    """Boxes from model input pixels to source pixels, clipped to the frame.

    Args:
        boxes_input_xyxy: (n, 4) in pixels of the model input.
        letterbox: How the frame was placed.

    Returns:
        float32 (n, 4) in pixels of the source frame.
    """
    shift, scale = _shift_scale(letterbox)
    boxes = (np.asarray(boxes_input_xyxy, np.float64) - shift) / scale
    return clip_xyxy(boxes, letterbox.width, letterbox.height)


def to_input(boxes_source_xyxy: Boxes, letterbox: LetterboxMap) -> NDArray[np.float32]:
    """Boxes from source pixels to model input pixels; the inverse of `to_source` for boxes in the frame.

    Args:
        boxes_source_xyxy: (n, 4) in pixels of the source frame.
        letterbox: How the frame was placed.

    Returns:
        float32 (n, 4) in pixels of the model input.
    """
    shift, scale = _shift_scale(letterbox)
    return (np.asarray(boxes_source_xyxy, np.float64) * scale + shift).astype(np.float32)


def _shift_scale(letterbox: LetterboxMap) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    shift = np.array([letterbox.pad_x, letterbox.pad_y] * 2, np.float64)
    return shift, np.array([letterbox.scale_x, letterbox.scale_y] * 2, np.float64)
