"""The one object of a source that is localized: an id while it stays, and a steadier box if wanted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tracking.base import NO_HINTS, Hints

__all__ = ["SingleObject"]

#: An object may move by its own size between two frames in which it was seen; farther away is another one.
_FARTHEST = 1.0


class SingleObject:
    """Follows the one detection of each frame.

    Smoothing is a first-order low pass on the four sides, over real time: after ``smoothing_s`` a step of the
    box has been followed by 63 %. It starts anew with each object.

    Args:
        first_id: Id of the first object.
        lost_s: Seconds for which an object that is not seen keeps its id.
        smoothing_s: Time constant in seconds; 0 for none.

    Raises:
        ConfigError: a time is negative or not finite.
    """

    def __init__(self, *, first_id: int = 1, lost_s: float = 1.0, smoothing_s: float = 0.0) -> None:
        for name, value in (("lost_s", lost_s), ("smoothing_s", smoothing_s)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"track.{name} is {value}", hint="write a number of seconds, 0 or more")
        self.next_id = first_id
        self._lost_s = lost_s
        self._smoothing_s = smoothing_s
        self._box: NDArray[np.float64] | None = None
        self._seen_s = 0.0

    def update(self, detections: Detections, timestamp_s: float, hints: Hints = NO_HINTS) -> Detections:
        """Give the best detection its id, and its box a steadier place; the others are left out.

        See `Tracker.update`; no object, no id.
        """
        best = detections.select(slice(0, 1))
        if len(best) == 0:
            return best.with_tracks(np.zeros(0, np.int64))
        box = best.boxes_xyxy[0].astype(np.float64)
        passed_s = max(0.0, timestamp_s - self._seen_s)
        if self._box is None or passed_s > self._lost_s or _apart(box, self._box):
            self.next_id += 1
        elif self._smoothing_s > 0:
            box = self._box + (box - self._box) * -math.expm1(-passed_s / self._smoothing_s)
        self._box, self._seen_s = box, timestamp_s
        return Detections(box[None], best.scores, best.class_ids, [self.next_id - 1])

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self._box = None


def _apart(box: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether the centres are farther from each other than the larger of the boxes is wide and high."""
    size = np.maximum(box[2:] - box[:2], other[2:] - other[:2])
    shift = np.abs(box[:2] + box[2:] - other[:2] - other[2:]) / 2
    return bool((shift > _FARTHEST * size).any())
