"""ByteTrack: strong detections first, then weak ones for the tracks that are left.

Source: Zhang, Sun, Jiang, Yu, Weng, Yuan, Luo, Liu and Wang, "ByteTrack: Multi-Object Tracking by Associating
Every Detection Box", ECCV 2022.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.association import Pairs, assign
from pipeline.tracking.batch import ScoreTracker, Seen
from pipeline.tracking.states import XYAH

__all__ = ["ByteTrack"]

#: IoU below which a weak detection extends no track.
_WEAK_IOU: Final = 0.5
#: Similarity below which a detection extends no track that is not confirmed.
_NEW_IOU: Final = 0.2


class ByteTrack(ScoreTracker):
    """ByteTrack.

    Three rounds: strong detections and confirmed tracks, lost ones too; weak detections and confirmed tracks
    that were seen in the frame before; what is left of the strong ones and the tracks that are not confirmed.
    Options: see `BatchTracker`; weak detections, below ``high``, only extend tracks.
    """

    state = XYAH

    def _associate(self, seen: Seen) -> Pairs:
        tracks = self._tracks
        overlap = self._overlap(tracks.predicted(), seen)
        strong = seen.scores >= self._high
        confirmed = tracks.ids >= 0
        only_strong, only_confirmed = bool(strong.all()), bool(confirmed.all())
        likeness = self._likeness(overlap, seen)
        if not only_strong:
            likeness = likeness * strong
        first = assign(likeness if only_confirmed else likeness * confirmed[:, None], self._min_iou)
        if only_strong and only_confirmed:
            return first
        left, free = np.ones(len(overlap), bool), strong.copy()
        left[first[0]] = False
        free[first[1]] = False
        found = [first]
        if not only_strong:
            recent = (left & confirmed & self._tracked(seen))[:, None]
            found.append(assign(overlap * (recent & ~strong), max(_WEAK_IOU, self._min_iou)))
        if not only_confirmed:
            young = (left & ~confirmed)[:, None]
            found.append(assign(likeness * (young & free), max(_NEW_IOU, self._min_iou)))
        return np.concatenate([rows for rows, _ in found]), np.concatenate([columns for _, columns in found])

    def _likeness(self, overlap: NDArray[np.float64], seen: Seen) -> NDArray[np.float64]:
        """How likely tracks and detections belong together, float64 (n, m), from their IoU."""
        return overlap
