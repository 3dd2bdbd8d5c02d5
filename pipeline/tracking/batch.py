"""What SORT, ByteTrack, OC-SORT and BoT-SORT have in common: one pass over arrays for each frame."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tracking.association import Pairs
from pipeline.tracking.base import NO_HINTS, Hints
from pipeline.tracking.kalman import Noise
from pipeline.tracking.lostandfound import reclaim
from pipeline.tracking.states import XYWH, BoxState
from pipeline.tracking.tracks import Tracks
from pipeline.vision.boxes import iou_matrix

__all__ = ["BatchTracker", "ScoreTracker", "Seen"]

#: Step given to a frame whose time does not rise, in seconds.
_MIN_STEP_S = 0.001
#: Most detections that are tracked in one frame, the strongest; the others go on without an id.
_MOST_DETECTIONS = 1000
#: Most tracks; while there are so many, none is started.
_MOST_TRACKS = 3000
#: Rounding of times that were added up.
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Seen:
    """The detections of a frame that are tracked.

    Attributes:
        boxes: float64 (n, 4), xyxy.
        scores: float64 (n,).
        class_ids: int32 (n,).
        embeddings: float32 (n, d), or None; see `Hints`.
        now_s: The tracker's own time, which always rises.
        passed_s: Seconds since the frame before.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_ids: NDArray[np.int32]
    embeddings: NDArray[np.float32] | None
    now_s: float
    passed_s: float


class BatchTracker(ABC):
    """A tracker that is a `Tracks` and a way to associate.

    A track is confirmed by detections, not by frames: frames that were dropped do not count against it. One
    that is not confirmed goes when a frame does not show it.

    Args:
        first_id: Id of the first object.
        lost_s: Seconds for which an object that is not seen keeps its id.
        activation: Lowest score that starts a track.
        min_frames: Detections in a row after which a track is confirmed.
        min_iou: Similarity of a box and the predicted box that the same object is above; the IoU, unless the
            algorithm says otherwise.
        class_agnostic: Associate across classes: an object whose class flickers (car, truck) keeps its id.
        lost_and_found: Give an object that reappears nearby the id it had; see `lostandfound`.

    Raises:
        ConfigError: a value is out of its range.
    """

    #: What the filter follows.
    state: ClassVar[BoxState] = XYWH
    #: How much it believes; for all coordinates in proportion to the box.
    noise: ClassVar[Noise] = Noise()

    def __init__(
        self,
        *,
        first_id: int = 1,
        lost_s: float = 2.0,
        activation: float = 0.45,
        min_frames: int = 2,
        min_iou: float = 0.2,
        class_agnostic: bool = False,
        lost_and_found: bool = True,
    ) -> None:
        _check(
            first_id=first_id, lost_s=lost_s, activation=activation, min_frames=min_frames, min_iou=min_iou
        )
        self._tracks = Tracks(self.state, self.noise)
        self._next_id = first_id
        self._lost_s = lost_s
        self._activation = activation
        self._min_frames = min_frames
        self._min_iou = min_iou
        self._class_agnostic = class_agnostic
        self._lost_and_found = lost_and_found
        self._now_s = 0.0
        self._last_s: float | None = None

    @property
    def next_id(self) -> int:
        """Id that the next new object will get."""
        return self._next_id

    def update(self, detections: Detections, timestamp_s: float, hints: Hints = NO_HINTS) -> Detections:
        """See `Tracker.update`."""
        strongest = None
        if len(detections) > _MOST_DETECTIONS:
            strongest = np.argsort(-detections.scores, kind="stable")[:_MOST_DETECTIONS]
        seen = self._seen(detections, timestamp_s, hints, strongest)
        tracks = self._tracks
        if len(tracks):
            tracks.keep(seen.now_s - tracks.seen_s <= self._lost_s + _SLACK_S)
            tracks.predict(seen.passed_s)
            self._move(hints)
        rows, columns = _NO_PAIRS
        if len(tracks) and len(seen.boxes):
            rows, columns = self._associate(seen)
            if len(rows):
                self._before(rows, columns, seen)
                tracks.see(rows, seen.boxes[columns], seen.class_ids[columns], seen.now_s)
        row_of = np.full(len(seen.boxes), -1, np.int64)
        row_of[columns] = rows
        fresh = ((row_of < 0) & (seen.scores >= self._activation)).nonzero()[0]
        if len(fresh) and len(tracks) + len(fresh) <= _MOST_TRACKS:
            row_of[fresh] = tracks.add(seen.boxes[fresh], seen.class_ids[fresh], seen.now_s)
            if len(rows):
                rows, columns = np.concatenate([rows, row_of[fresh]]), np.concatenate([columns, fresh])
            else:
                rows, columns = row_of[fresh], fresh
        if len(rows):
            self._after(rows, columns, seen)
            self._confirm(row_of, seen)
        found = np.where(row_of >= 0, tracks.ids[row_of], -1) if len(tracks) else row_of
        if len(tracks):
            tracks.keep((tracks.ids >= 0) | (tracks.seen_s >= seen.now_s))
        if strongest is not None:
            of_all = np.full(len(detections), -1, np.int64)
            of_all[strongest] = found
            found = of_all
        return detections.with_tracks(found)

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self._tracks.keep(np.zeros(len(self._tracks), bool))
        self._last_s = None

    @abstractmethod
    def _associate(self, seen: Seen) -> Pairs:
        """Tracks and detections that belong together; there is at least one of either."""

    def _move(self, hints: Hints) -> None:  # noqa: B027
        """The picture moves under the predicted tracks."""

    def _before(  # noqa: B027
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen
    ) -> None:
        """Tracks ``rows`` are about to take in the detections ``columns``."""

    def _after(  # noqa: B027
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen
    ) -> None:
        """Tracks ``rows``, newborn ones among them, have taken in the detections ``columns``."""

    def _overlap(self, boxes: NDArray[np.float64], seen: Seen) -> NDArray[np.float64]:
        """IoU of boxes of all tracks with the detections; 0 where the classes may not mix."""
        overlap = iou_matrix(boxes, seen.boxes)
        if not self._class_agnostic:
            classes = self._tracks.class_ids
            one = classes[0]
            if (classes != one).any() or (seen.class_ids != one).any():
                overlap *= classes[:, None] == seen.class_ids
        return overlap

    def _tracked(self, seen: Seen) -> NDArray[np.bool_]:
        """Which tracks were seen in the frame before."""
        return np.asarray(self._tracks.seen_s >= seen.now_s - seen.passed_s - _SLACK_S)

    def _confirm(self, row_of: NDArray[np.int64], seen: Seen) -> None:
        """Give ids to tracks that have been seen often enough, in the order of the detections."""
        tracks = self._tracks
        due = (tracks.ids < 0) & (tracks.hits >= self._min_frames)
        if not due.any():
            return
        rows = row_of[row_of >= 0]
        rows = rows[due[rows]]
        if self._lost_and_found:
            gone = reclaim(tracks, rows, seen.now_s, self._class_agnostic, tracks.columns.get("features"))
            returning = gone >= 0
            if returning.any():
                tracks.ids[rows[returning]] = tracks.ids[gone[returning]]
                tracks.ids[gone[returning]] = -1  # and so they are removed with the unconfirmed
                rows = rows[~returning]
        tracks.ids[rows] = np.arange(self._next_id, self._next_id + len(rows))
        self._next_id += len(rows)

    def _seen(
        self, detections: Detections, timestamp_s: float, hints: Hints, strongest: NDArray[np.int64] | None
    ) -> Seen:
        passed_s = _MIN_STEP_S
        if math.isfinite(timestamp_s):
            if self._last_s is not None and timestamp_s > self._last_s:
                passed_s = timestamp_s - self._last_s
            self._last_s = timestamp_s
        self._now_s += passed_s
        columns: list[Any] = [
            detections.boxes_xyxy,
            detections.scores,
            detections.class_ids,
            hints.embeddings,
        ]
        if strongest is not None:
            columns = [None if column is None else column[strongest] for column in columns]
        boxes, scores, class_ids, embeddings = columns
        return Seen(
            boxes.astype(np.float64), scores.astype(np.float64), class_ids, embeddings, self._now_s, passed_s
        )


class ScoreTracker(BatchTracker):
    """A tracker that treats strong and weak detections differently.

    Args:
        high: Score from which a detection is strong.
        **others: See `BatchTracker`.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        first_id: int = 1,
        lost_s: float = 2.0,
        activation: float = 0.45,
        high: float = 0.45,
        min_frames: int = 2,
        min_iou: float = 0.2,
        class_agnostic: bool = False,
        lost_and_found: bool = True,
    ) -> None:
        _check(high=high)
        super().__init__(
            first_id=first_id,
            lost_s=lost_s,
            activation=activation,
            min_frames=min_frames,
            min_iou=min_iou,
            class_agnostic=class_agnostic,
            lost_and_found=lost_and_found,
        )
        self._high = high


_NO_PAIRS = np.zeros(0, np.int64), np.zeros(0, np.int64)


def _check(**values: float) -> None:
    for name, value in values.items():
        low, top = _RANGES.get(name, (0.0, 1.0))
        if not low <= value <= top:
            raise ConfigError(f"track.{name} is {value}", hint=f"write a number from {low} to {top}")


_RANGES: dict[str, tuple[float, float]] = {
    "first_id": (0, 2**62),
    "lost_s": (0.0, 3600.0),
    "min_frames": (1, 1000),
}
