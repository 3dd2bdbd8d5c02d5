"""Tags of a picture: which labels it deserves, in percent."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.messages import Classes, Detections

__all__ = ["tags_of"]


def tags_of(labels: Sequence[str], detections: Detections, classes: Classes | None = None) -> dict[str, int]:
    """The labels of a frame with their best score.

    Args:
        labels: Class names by class id.
        detections: Objects of the frame; a label counts once, with its best object.
        classes: Classes of the whole frame, where the model gives those.

    Returns:
        Label to whole percent, 1..100, best first, equal ones in the order found.
    """
    pairs = list(zip(detections.class_ids.tolist(), detections.scores.tolist(), strict=True))
    if classes is not None:
        pairs += zip(classes.class_ids, classes.scores, strict=True)
    best: dict[str, int] = {}
    for class_id, score in pairs:
        label = labels[class_id] if 0 <= class_id < len(labels) else f"class_{class_id}"
        best[label] = max(best.get(label, 1), round(100 * score))
    return dict(sorted(best.items(), key=lambda one: -one[1]))
