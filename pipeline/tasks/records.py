"""What was found in one picture, as plain data for JSON. Pure.

Objects and classes have the same keys and the same rounding as in the frame records of
`pipeline.sinks.records`, so that one program reads both.
"""

from __future__ import annotations

from typing import Any

from pipeline.analytics.tags import tags_of
from pipeline.messages import Detections, ModelSpec, Task
from pipeline.sinks.records import label_of
from pipeline.tasks.reading import Found

__all__ = ["failed_record", "found_record", "picture_record"]


def found_record(found: Found, spec: ModelSpec, task: Task, width: int, height: int) -> dict[str, Any]:
    """The answer itself.

    Args:
        found: What the model saw; boxes in pixels of the picture.
        spec: The model.
        task: What was asked.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        ``{"detections": […]}`` for ``detect``, ``{"object": {…} or None}`` for ``localize``,
        ``{"classes": […]}`` for ``classify``, ``{"tags": {"auto": {label: percent}}}`` for ``tag``; best
        first. Pixels are rounded to 1/100, normalised coordinates to 1e-6, confidence to 1e-4.
    """
    if task == "tag":
        return {"tags": {"auto": tags_of(spec.labels, found.detections, found.classes)}}
    if task == "classify":
        classes = found.classes
        pairs = [] if classes is None else zip(classes.class_ids, classes.scores, strict=True)
        return {
            "classes": [
                {
                    "label": label_of(spec.labels, class_id),
                    "class_id": class_id,
                    "confidence": round(score, 4),
                }
                for class_id, score in pairs
            ]
        }
    objects = _objects(found.detections, spec.labels, width, height)
    if task == "localize":
        return {"object": objects[0] if objects else None}
    return {"detections": objects}


def picture_record(
    image: str, found: Found, spec: ModelSpec, task: Task, width: int, height: int
) -> dict[str, Any]:
    """The answer with what it is about.

    Args:
        image: Name of the picture, as it was given.
        found: See `found_record`, as for all that follow.
        spec: The model.
        task: What was asked.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        ``{"image", "status": "ok", "task", "model", "provider", "width", "height", …}``, with the keys of
        `found_record` at its end.
    """
    record: dict[str, Any] = {"image": image, "status": "ok", "task": task}
    record |= {"model": spec.name, "provider": spec.provider, "width": width, "height": height}
    return record | found_record(found, spec, task, width, height)


def failed_record(image: str, spec: ModelSpec, task: Task, reason: str) -> dict[str, Any]:
    """What is said of a picture that could not be looked at: never that nothing is there.

    Args:
        image: Name of the picture, as it was given.
        spec: The model.
        task: What was asked.
        reason: Why, in words.
    """
    return {"image": image, "status": "failed", "reason": reason, "task": task, "model": spec.name}


def _objects(found: Detections, labels: tuple[str, ...], width: int, height: int) -> list[dict[str, Any]]:
    rows = zip(found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True)
    return [
        {
            "label": label_of(labels, class_id),
            "class_id": class_id,
            "confidence": round(score, 4),
            "box_xyxy": [round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)],
            "box_normalized": [
                round(x1 / width, 6), round(y1 / height, 6), round(x2 / width, 6), round(y2 / height, 6),
            ],
        }
        for (x1, y1, x2, y2), score, class_id in rows
    ]  # fmt: skip
