"""What every tracker does."""

from __future__ import annotations

from typing import Protocol

from pipeline.messages import Detections

__all__ = ["Tracker"]


class Tracker(Protocol):
    """Gives the objects of one source ids that last from frame to frame. One instance per source.

    Attributes:
        next_id: Id that the next new object will get; ids are never used again, not after `reset` either.
            Keep it, and pass it as ``first_id`` to the next incarnation.
    """

    @property
    def next_id(self) -> int:
        """Id that the next new object will get."""

    def update(self, detections: Detections, timestamp_s: float) -> Detections:
        """Track the objects of one frame.

        Args:
            detections: All objects of the frame; an empty frame counts too.
            timestamp_s: Presentation time of the frame in seconds; intervals may vary.

        Returns:
            The same objects in the same order, with ``track_ids``; -1 where a track is not confirmed.
        """

    def reset(self) -> None:
        """Forget all objects, as at a new epoch."""
