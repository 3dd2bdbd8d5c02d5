"""Boxes for trackers to follow, and what they said."""

from __future__ import annotations

import numpy as np

from pipeline.messages import Detections

__all__ = ["BATCHED", "Row", "box", "detections", "ids"]

#: The trackers that follow many objects.
BATCHED = ("botsort", "bytetrack", "ocsort", "sort")

Row = tuple[float, float, float, float]


def detections(*rows: Row, score: float = 0.9, class_ids: list[int] | None = None) -> Detections:
    """All with the same score; class 0 unless others are given."""
    return Detections(np.reshape(rows, (-1, 4)), [score] * len(rows), class_ids or [0] * len(rows))


def box(x: float, y: float = 0, size: float = 40) -> Row:
    """A square by its upper left corner."""
    return (x, y, x + size, y + size)


def ids(tracked: Detections) -> list[int]:
    """Ids in the order of the objects."""
    assert tracked.track_ids is not None
    assert tracked.track_ids.dtype == np.int64
    return [int(track_id) for track_id in tracked.track_ids]
