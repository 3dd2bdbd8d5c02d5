"""Class names: those of COCO, and those that a model file carries."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping

__all__ = ["COCO_80", "labels_of"]

#: The 80 classes of COCO in the order that detectors trained on it use.
COCO_80: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


def labels_of(metadata: Mapping[str, str], classes: int) -> tuple[str, ...]:
    """The class names of a model.

    Args:
        metadata: Key-value metadata of the model file. ``names`` may hold a list of names or a table from
            class id to name, as JSON or as a Python literal, which is what common exporters write.
        classes: How many classes the outputs have.

    Returns:
        Exactly ``classes`` names: those of the metadata when they are as many, else COCO's when there are
        80 classes, else ``class_0``, ``class_1``, ….
    """
    names = _parse(metadata.get("names", ""))
    if len(names) == classes and classes > 0:
        return names
    return COCO_80 if classes == len(COCO_80) else tuple(f"class_{index}" for index in range(classes))


def _parse(text: str) -> tuple[str, ...]:
    """Names in a metadata value; none when it is not a list or a table without gaps."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict):
            by_id = {str(key): name for key, name in value.items()}
            value = [by_id.get(str(index)) for index in range(len(by_id))]
        if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
            return tuple(value)
    return ()
