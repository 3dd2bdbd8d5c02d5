"""SORT: a Kalman filter and one assignment by overlap.

Source: Bewley, Ge, Ott, Ramos and Upcroft, "Simple Online and Realtime Tracking", ICIP 2016.
"""

from __future__ import annotations

from pipeline.tracking.association import Pairs, assign
from pipeline.tracking.batch import BatchTracker, Seen
from pipeline.tracking.states import XYSR

__all__ = ["Sort"]


class Sort(BatchTracker):
    """SORT. Weak detections extend tracks like strong ones. Options: see `BatchTracker`."""

    state = XYSR

    def _associate(self, seen: Seen) -> Pairs:
        return assign(self._overlap(self._tracks.predicted(), seen), self._min_iou)
