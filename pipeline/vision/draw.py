"""Boxes, labels, track ids and classes on a frame. Cheap to import; the first drawing loads supervision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Attribute, Classes, Detections

if TYPE_CHECKING:
    import supervision as sv

__all__ = ["draw", "warm_up"]

# Luminance above which black text reads better than white: ITU-R BT.601 weights, mid-grey.
_LIGHT = 140

# Labels are moved off each other and into the frame up to this many objects: the search is quadratic
# (6 ms for 40 labels, 65 ms for 100), and beyond it there is no room to move them to.
_MOST_SPREAD = 40


def warm_up() -> None:
    """Load what drawing needs now, so that the first frame does not wait a second for it."""
    blank = np.zeros((16, 16, 3), np.uint8)
    draw(blank, Detections([[2, 2, 8, 8]], [0.5], [0]), ("",))


def draw(
    bgr: NDArray[np.uint8],
    detections: Detections,
    labels: Sequence[str],
    classes: Classes | None = None,
    attributes: Sequence[Attribute] = (),
) -> NDArray[np.uint8]:
    """Draw objects on a copy of a frame: box, and ``car 0.87 #3 red`` for a red car of track 3.

    The colour goes by track where there is one, so that an object keeps it, else by class.
    Lines and text grow with the frame.

    Args:
        bgr: The frame, uint8 (h, w, 3) BGR; not changed.
        detections: Boxes in pixels of this frame.
        labels: Class names by class id.
        classes: Classes of the whole frame, written in its top left corner, best first.
        attributes: What cascades say of the objects.

    Returns:
        uint8 (h, w, 3) BGR, memory of its own.
    """
    scene = np.array(bgr, order="C")
    if classes is not None:
        _write_classes(scene, classes, labels)
    if len(detections) == 0:
        return scene
    import supervision as sv  # 1 s and 118 MB, which only who draws should pay

    height, width = scene.shape[:2]
    boxes, captions = _annotators(width, height, len(detections) <= _MOST_SPREAD)
    tracks = np.full(len(detections), -1) if detections.track_ids is None else detections.track_ids
    colours = np.where(tracks >= 0, tracks, np.abs(detections.class_ids)).astype(np.int64)
    shown = sv.Detections(
        xyxy=detections.boxes_xyxy, confidence=detections.scores, class_id=detections.class_ids
    )
    texts = [
        _text(labels, class_id, score, track)
        for class_id, score, track in zip(
            detections.class_ids.tolist(), detections.scores.tolist(), tracks.tolist(), strict=True
        )
    ]
    for one in attributes:
        texts[one.object] += f" {one.label}"
    scene = boxes.annotate(scene, shown, custom_color_lookup=colours)
    return captions.annotate(scene, shown, texts, custom_color_lookup=colours)


def _text(labels: Sequence[str], class_id: int, score: float, track: int) -> str:
    text = f"{_name(labels, class_id)} {score:.2f}"
    return f"{text} #{track}" if track >= 0 else text


def _name(labels: Sequence[str], class_id: int) -> str:
    return labels[class_id] if 0 <= class_id < len(labels) else f"class_{class_id}"


def _write_classes(scene: NDArray[np.uint8], classes: Classes, labels: Sequence[str]) -> None:
    """A line for each class, white on a dark ground, as large as captions are."""
    short = min(scene.shape[:2])
    scale, thick = min(max(short / 1000, 0.35), 1.5), max(1, round(short / 500))
    y = gap = max(2, round(short / 180))
    for class_id, score in zip(classes.class_ids, classes.scores, strict=True):
        text = f"{_name(labels, class_id)} {score:.2f}"
        (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
        cv2.rectangle(scene, (0, y - gap), (width + 2 * gap, y + height + base), (40, 40, 40), -1)
        cv2.putText(scene, text, (gap, y + height), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick,
                    cv2.LINE_AA)  # fmt: skip
        y += height + base + gap


@lru_cache(maxsize=16)
def _annotators(width: int, height: int, spread: bool) -> tuple[sv.BoxAnnotator, sv.LabelAnnotator]:
    import supervision as sv

    short = min(width, height)
    palette = sv.ColorPalette.DEFAULT
    # Same index, so each box colour has its own readable text colour.
    texts = sv.ColorPalette(
        [
            sv.Color.BLACK if 0.299 * c.r + 0.587 * c.g + 0.114 * c.b > _LIGHT else sv.Color.WHITE
            for c in palette.colors
        ]
    )
    boxes = sv.BoxAnnotator(color=palette, thickness=max(1, round(short / 240)))
    captions = sv.LabelAnnotator(
        color=palette,
        text_color=texts,
        text_scale=min(max(short / 1000, 0.35), 1.5),
        text_thickness=max(1, round(short / 500)),
        text_padding=max(2, round(short / 180)),
        smart_position=spread,
    )
    return boxes, captions
