"""No tracking: every object of every frame stands for itself."""

from __future__ import annotations

from pipeline.messages import Detections
from pipeline.tracking.base import NO_HINTS, Hints

__all__ = ["NoTracker"]


class NoTracker:
    """Passes detections on, without ids, so that no object ever starts or ends.

    Args:
        first_id: Kept, for uniformity.
    """

    def __init__(self, *, first_id: int = 1) -> None:
        self.next_id = first_id

    def update(self, detections: Detections, timestamp_s: float, hints: Hints = NO_HINTS) -> Detections:
        """See `Tracker.update`; ``track_ids`` stays None."""
        return detections

    def reset(self) -> None:
        """See `Tracker.reset`."""
