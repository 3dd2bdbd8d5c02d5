"""Class names: those of COCO and ImageNet, and those that a model file carries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pipeline.heads._metadata import names_in

__all__ = ["COCO_80", "imagenet_1000", "labels_of"]

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

_BACKGROUND = "background"
#: Category ids from 1 to 90 that COCO announced and never annotated.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_IMAGENET_PATH = Path(__file__).parent / "data" / "imagenet_1000.txt"


@lru_cache(maxsize=1)
def imagenet_1000() -> tuple[str, ...]:
    """The 1000 classes of ImageNet (ILSVRC 2012) in the order of their ids; each name stands once."""
    return tuple(_IMAGENET_PATH.read_text("utf-8").splitlines())


def labels_of(metadata: Mapping[str, str], classes: int, kind: str = "") -> tuple[str, ...]:
    """The class names of a model.

    Args:
        metadata: Key-value metadata of the model file, read as `names_in` says.
        classes: How many classes the outputs have.
        kind: ``detector`` or ``classifier``, to leave out the sets of the other; empty for all.

    Returns:
        Exactly ``classes`` names: those of the metadata when they are as many; else those of a known set of
        so many classes; else ``class_0``, ``class_1``, …. The sets are, for detectors, COCO (80), after a
        background (81), and by its category ids 1 to 90 (90) or 0 to 90 (91), where ids that it never used
        are called ``unused_12``; for classifiers, ImageNet (1000), and after a background (1001).
    """
    names = names_in(metadata)
    if len(names) == classes and classes > 0:
        return names
    known: tuple[str, ...] = ()
    if classes in (80, 81, 90, 91) and kind != "classifier":
        known = _coco(classes)
    if classes in (1000, 1001) and kind != "detector":
        known = ((_BACKGROUND,) if classes == 1001 else ()) + imagenet_1000()
    return known or tuple(f"class_{index}" for index in range(classes))


def _coco(classes: int) -> tuple[str, ...]:
    if classes in (80, 81):
        return ((_BACKGROUND,) if classes == 81 else ()) + COCO_80
    rest = iter(COCO_80)
    by_id = tuple(f"unused_{number}" if number in _UNUSED_IDS else next(rest) for number in range(1, 91))
    return by_id if classes == 90 else (_BACKGROUND, *by_id)
