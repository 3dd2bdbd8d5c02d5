"""What the stages around ``infer`` must know about a model."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ["ModelSpec", "Task"]


#: What a run does with each frame; see ``pipeline.tasks``.
Task = Literal["classify", "localize", "detect", "tag"]


class ModelSpec(msgspec.Struct, frozen=True):
    """What the stages around ``infer`` must know about a model; travels once, when it is ready.

    Attributes:
        name: Name as the user gave it, or the file's stem.
        sha256: Digest of the model file (lower-case hex); empty where there is no file.
        family: Head that decodes it (``yolox``, ``ssd``, …), a key of ``pipeline.heads.HEADS``.
        labels: Class names by class id.
        input_width: Width of the input in pixels.
        input_height: Height of the input in pixels.
        input_dtype: ``uint8``, ``float32`` or ``float16``.
        input_layout: ``nhwc`` or ``nchw``.
        channels: Channel order of the input, ``bgr`` or ``rgb``.
        mean: Per-channel mean, in input channel order, subtracted before ``std`` (0..255 scale).
        std: Per-channel divisor, in input channel order.
        letterbox: ``center`` or ``topleft`` (aspect kept, padded), ``stretch``, or ``crop`` (aspect kept, the
            middle of the frame fills the input, what is beside it is not seen).
        pad_value: Grey level of the padding.
        crop: For ``crop``: which share of the frame's shorter side the input shows, 0..1 (0.875 is "resize to
            256, crop 224").
        output_names: Outputs of the graph that the head reads, in the order in which they travel.
        provider: Execution provider in force.
        kind: What the head gives: ``detector`` (boxes) or ``classifier`` (classes of the whole frame).
        nms_iou: IoU over which the weaker of two boxes of a class goes; None where the graph has settled it.
        options: What the head must know beyond the outputs, by name, plain data; each head's module lists
            its own.
        feeds: Other inputs of the graph than the picture, by name: their values for one frame, the same for
            every frame (``orig_target_sizes`` = the input's own size, so that boxes stay in its pixels).
        max_rows: Most rows of outputs whose number of rows depends on the picture (NMS in the graph); these
            are padded with zeros to it, so a row with a score of 0 is none. 0 where all sizes are fixed.
    """

    name: str
    sha256: str
    family: str
    labels: tuple[str, ...]
    input_width: int
    input_height: int
    input_dtype: Literal["uint8", "float32", "float16"] = "float32"
    input_layout: Literal["nhwc", "nchw"] = "nchw"
    channels: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    letterbox: Literal["center", "topleft", "stretch", "crop"] = "center"
    pad_value: int = 114
    crop: float = 0.875
    output_names: tuple[str, ...] = ()
    provider: str = ""
    kind: Literal["detector", "classifier"] = "detector"
    nms_iou: float | None = None
    options: dict[str, Any] = {}
    feeds: dict[str, tuple[float, ...]] = {}
    max_rows: int = 0
