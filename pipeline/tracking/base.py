"""What every tracker does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Detections

__all__ = ["NO_HINTS", "Hints", "Tracker"]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a tracker may be told of a frame besides its objects.

    Attributes:
        motion: How the picture has moved since the frame of the last update, float64 (2, 3): pixels of that
            frame to pixels of this one; None where it stands still or nobody has looked.
        embeddings: What the objects look like, float32 (n, d), rows of length 1, or of zeros where nothing is
            known; None where nobody has looked.
    """

    motion: NDArray[np.float64] | None = None
    embeddings: NDArray[np.float32] | None = None


NO_HINTS = Hints()


class Tracker(Protocol):
    """Gives the objects of one source ids that last from frame to frame. One instance per source.

    Attributes:
        next_id: Id that the next new object will get; ids are never used again, not after `reset` either.
            Keep it, and pass it as ``first_id`` to the next incarnation.
    """

    @property
    def next_id(self) -> int:
        """Id that the next new object will get."""

    def update(self, detections: Detections, timestamp_s: float, hints: Hints = NO_HINTS) -> Detections:
        """Track the objects of one frame.

        Args:
            detections: All objects of the frame; an empty frame counts too.
            timestamp_s: Presentation time of the frame in seconds; intervals may vary.
            hints: What else is known of the frame.

        Returns:
            The same objects in the same order, with ``track_ids``; -1 where a track is not confirmed.
        """

    def reset(self) -> None:
        """Forget all objects, as at a new epoch."""
