"""What is known of an object from its start to its end, and who adds to it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import EventType, FrameHeader

__all__ = ["Box", "Fact", "Observer", "TrackedObject"]

#: x1, y1, x2, y2 in pixels of the source frame.
Box = tuple[float, float, float, float]


@dataclass(slots=True)
class TrackedObject:
    """One object that has started and not ended.

    Attributes:
        track_id: Its id.
        first: The first frame in which it was seen.
        last: The last one; while observers look at an object it is the present frame.
        label: Its label, by majority of the scores so far.
        box: Its box in that frame.
        score: Its score in that frame.
        top: Its best score.
        frames: In how many frames it was seen.
        votes: Sum of scores by class id.
        attributes: What cascades say: (label, score) by name.
        zones: Names of the zones that it is in, in the order of entering.
        entered_zones: Names of all that it has ever entered, in that order.
        stationary: Whether it has stayed where it is; None while that is not known.
        speed_mps: Speed over ground, metres a second; None without calibration.
        distance_m: Way over ground so far, metres; None without calibration.
        path: Where it has been: (seconds since its start, x, y), normalised anchor points, thinned out.
    """

    track_id: int
    first: FrameHeader
    last: FrameHeader
    label: str = ""
    box: Box = (0.0, 0.0, 0.0, 0.0)
    score: float = 0.0
    top: float = 0.0
    frames: int = 0
    votes: dict[int, float] = field(default_factory=dict)
    attributes: dict[str, tuple[str, float]] = field(default_factory=dict)
    zones: list[str] = field(default_factory=list)
    entered_zones: list[str] = field(default_factory=list)
    stationary: bool | None = None
    speed_mps: float | None = None
    distance_m: float | None = None
    path: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened, before it becomes an `Event`.

    Attributes:
        type: Type of the event.
        item: The object it happened to; None for facts of a zone or of the camera.
        fields: Other fields of the event (``zone``, ``action``, ``dwell_s``, …).
    """

    type: EventType
    item: TrackedObject | None
    fields: Mapping[str, Any]


class Observer:
    """Looks at the objects of one source, adds to what is known of them, and says what happened.

    In each frame `begin` comes first, then `see` for each object in it, then `finish`. `leave` comes once for
    an object that has gone, in the frame that noticed it, before `finish`. Time is ``header.pts_ns``; a frame
    may come any time after the one before. Nothing is carried over a new epoch: a new observer is made.
    """

    def begin(self, header: FrameHeader, motion: NDArray[np.float64] | None) -> None:
        """A frame begins.

        Args:
            header: The frame.
            motion: How the picture has moved since the last frame, float64 (2, 3): from pixels of the last
                frame to pixels of this one; None where it is not known, or the camera does not move.
        """

    def see(self, item: TrackedObject) -> Iterable[Fact]:
        """An object was seen in this frame; its box, score and label are up to date."""
        return ()

    def leave(self, item: TrackedObject, reason: str) -> Iterable[Fact]:
        """An object has gone; its ``end`` follows."""
        return ()

    def finish(self, items: Collection[TrackedObject]) -> Iterable[Fact]:
        """All objects of the frame have been told; ``items`` are those that are open, seen now or not."""
        return ()

    def close(self) -> Iterable[Fact]:
        """Nothing more comes, and all objects have left: what still holds is over."""
        return ()
