"""Classes of whole frames, followed: an id for each stay of a class."""

from __future__ import annotations

import math

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tracking.base import NO_HINTS, Hints

__all__ = ["ClassPresence"]


class ClassPresence:
    """Gives each class an id that lasts as long as it is seen again within ``lost_s``.

    Args:
        first_id: Id of the first stay.
        lost_s: Seconds for which a class that is not seen keeps its id.

    Raises:
        ConfigError: the time is negative or not finite.
    """

    def __init__(self, *, first_id: int = 1, lost_s: float = 1.0) -> None:
        if not 0 <= lost_s < math.inf:
            raise ConfigError(f"track.lost_s is {lost_s}", hint="write a number of seconds, 0 or more")
        self.next_id = first_id
        self._lost_s = lost_s
        self._stays: dict[int, tuple[int, float]] = {}

    def update(self, detections: Detections, timestamp_s: float, hints: Hints = NO_HINTS) -> Detections:
        """Give each class its id; see `Tracker.update`. A class comes once in a frame."""
        ids = []
        for class_id in detections.class_ids.tolist():
            track_id, seen_s = self._stays.get(class_id, (-1, -math.inf))
            if timestamp_s - seen_s > self._lost_s:
                track_id, self.next_id = self.next_id, self.next_id + 1
            self._stays[class_id] = track_id, timestamp_s
            ids.append(track_id)
        return detections.with_tracks(ids)

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self._stays = {}
