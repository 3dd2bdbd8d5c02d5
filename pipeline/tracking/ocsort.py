"""OC-SORT: trusts what was observed more than what the filter made of it.

Source: Cao, Pang, Weng, Khirodkar and Kitani, "Observation-Centric SORT: Rethinking SORT for Robust
Multi-Object Tracking", CVPR 2023. Its three parts: the direction of an object enters the association (OCM,
section 4.2); tracks that found nothing are tried again where they were seen last (OCR); and when a lost track
is found again, the filter goes once more through the time between, along a straight way (ORU, section 4.1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.association import Pairs, assign
from pipeline.tracking.batch import ScoreTracker, Seen
from pipeline.tracking.states import XYSR

__all__ = ["OCSort"]

#: The direction of a track is that of its way over so many seconds ...
_DIRECTION_S: Final = 0.1
#: ... and it is known for so many detections back.
_TRAIL: Final = 8
#: What the direction weighs beside the IoU.
_INERTIA: Final = 0.2
#: Most steps in which the filter goes over a gap again.
_STEPS: Final = 30


class OCSort(ScoreTracker):
    """OC-SORT. Options: see `BatchTracker`; detections below ``high`` are not tracked."""

    state = XYSR

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
        super().__init__(
            first_id=first_id,
            lost_s=lost_s,
            activation=max(activation, high),
            high=high,
            min_frames=min_frames,
            min_iou=min_iou,
            class_agnostic=class_agnostic,
            lost_and_found=lost_and_found,
        )
        self._tracks.extend("trail", np.zeros((_TRAIL, 2)))
        self._tracks.extend("trail_s", np.full(_TRAIL, np.inf))
        self._tracks.extend("frozen", np.zeros((5, 4)))

    def _associate(self, seen: Seen) -> Pairs:
        strong = seen.scores >= self._high
        overlap = self._overlap(self._tracks.predicted(), seen)
        if not strong.all():
            overlap *= strong
        near_rows, near_columns = (overlap > self._min_iou).nonzero()
        likeness = np.zeros_like(overlap)
        likeness[near_rows, near_columns] = np.maximum(
            overlap[near_rows, near_columns] + self._consistency(near_rows, near_columns, seen), 1e-6
        )
        rows, columns = assign(likeness, 0.0)
        # OCR: the rest, where the tracks were last seen.
        left, free = np.ones(len(overlap), bool), strong
        left[rows] = False
        free[columns] = False
        if not (left.any() and free.any()):
            return rows, columns
        again = self._overlap(self._tracks.boxes, seen)
        again *= left[:, None] & free
        more_rows, more_columns = assign(again, self._min_iou)
        return np.concatenate([rows, more_rows]), np.concatenate([columns, more_columns])

    def _consistency(
        self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen
    ) -> NDArray[np.float64]:
        """OCM: what pairs gain from going the track's way, float64 (k,); half the inertia at most."""
        trail, trail_s = self._tracks.columns["trail"], self._tracks.columns["trail_s"]
        known = np.isfinite(trail_s)
        young = trail_s[:, :1] - trail_s < _DIRECTION_S
        back = np.minimum((young & known).sum(axis=1), known.sum(axis=1) - 1)
        way = trail[:, 0] - trail[np.arange(len(trail)), back]
        centres = (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
        ahead = centres[columns] - trail[rows, 0]
        length = np.hypot(way[:, 0], way[:, 1])[rows] * np.hypot(ahead[:, 0], ahead[:, 1])
        cosine = (way[rows] * ahead).sum(axis=1) / np.maximum(length, 1e-9)
        angle = np.arccos(np.clip(cosine, -1.0, 1.0))
        gain = _INERTIA * (0.5 - angle / np.pi) * seen.scores[columns]
        return np.asarray(np.where(length > 1e-9, gain, 0.0))

    def _before(self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen) -> None:
        """ORU: tracks that come back go over the gap again, from the state in which they were last seen."""
        lost = ~self._tracked(seen)[rows]
        if not lost.any():
            return
        rows, columns = rows[lost], columns[lost]
        tracks, kalman = self._tracks, self._tracks.filter
        kalman.state[:, rows] = tracks.columns["frozen"][rows].swapaxes(0, 1)
        gap_s = seen.now_s - tracks.seen_s[rows]
        steps = np.clip(np.rint(gap_s / seen.passed_s), 1, _STEPS).astype(np.int64)
        first, way = tracks.boxes[rows], seen.boxes[columns] - tracks.boxes[rows]
        step_s = (gap_s / steps)[:, None]
        for step in range(1, int(steps.max()) + 1):
            active = steps >= step
            some = rows[active]
            kalman.predict(step_s[active], tracks.units(some), some)
            between = steps > step  # the last detection itself comes after
            if between.any():
                share = (step / steps[between])[:, None]
                tracks.measure(rows[between], first[between] + way[between] * share)

    def _after(self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen) -> None:
        tracks = self._tracks
        trail, trail_s = tracks.columns["trail"], tracks.columns["trail_s"]
        trail[rows, 1:] = trail[rows, :-1]
        trail_s[rows, 1:] = trail_s[rows, :-1]
        trail[rows, 0] = (seen.boxes[columns, :2] + seen.boxes[columns, 2:]) / 2
        trail_s[rows, 0] = seen.now_s
        tracks.columns["frozen"][rows] = tracks.filter.state[:, rows].swapaxes(0, 1)
