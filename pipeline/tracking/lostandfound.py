"""Objects that reappear: which lost track a newly confirmed one goes on with.

An object that was hidden, or that the detector missed, is often found again where no predicted box overlaps
it. Then a new track begins. Before it gets an id of its own, the tracks that were lost before it began are
looked through: one of the same class, near where it was heading, of about the same size, gives its id to the
new one and is gone. Two objects that were ever in the picture at once are never merged, since the lost track
must have been seen for the last time before the new one was seen first.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.association import assign, cosine_similarity
from pipeline.tracking.tracks import Tracks

__all__ = ["reclaim"]

#: How far from the place foreseen it may be, in sizes of the object (root of its area), ...
_NEAR: Final = 0.5
#: ... and how much farther for every second that it was away.
_FARTHER_PER_S: Final = 1.0
#: Seconds for which it is thought to have gone on at its last speed.
_HEADING_S: Final = 1.0
#: Largest factor between its areas before and after.
_LARGER: Final = 2.0
#: Smallest cosine of what it looks like, where that is known.
_ALIKE: Final = 0.6


def reclaim(
    tracks: Tracks,
    fresh: NDArray[np.int64],
    now_s: float,
    class_agnostic: bool = False,
    features: NDArray[Any] | None = None,
) -> NDArray[np.int64]:
    """Find the lost tracks that new ones go on with.

    Args:
        tracks: All tracks.
        fresh: int64 (m,), tracks that are about to get an id.
        now_s: The time.
        class_agnostic: The class may have changed.
        features: What the tracks look like, (n, d), rows of length 1 or 0; None where nobody has looked.

    Returns:
        int64 (m,), for each the lost track, each at most once; -1 for those that are new.
    """
    gone = np.full(len(fresh), -1, np.int64)
    lost = ((tracks.ids >= 0) & (tracks.seen_s < tracks.born_s[fresh].max(initial=-np.inf))).nonzero()[0]
    if not len(lost):
        return gone
    first_s, last_s = tracks.born_s[fresh], tracks.seen_s[lost]
    away_s = first_s[:, None] - last_s
    possible = away_s > 0.0
    if not class_agnostic:
        possible &= tracks.class_ids[fresh][:, None] == tracks.class_ids[lost]
    # The filter foresees a straight way until now; a lost object is not trusted to keep it for long.
    beyond_s = np.maximum(now_s - last_s - _HEADING_S, 0.0)[:, None]
    place = tracks.filter.position[lost, :2] - tracks.filter.velocity[lost, :2] * beyond_s
    sides = np.maximum(tracks.boxes[:, 2:] - tracks.boxes[:, :2], 1.0)
    area = sides[:, 0] * sides[:, 1]
    centre = (tracks.boxes[fresh, :2] + tracks.boxes[fresh, 2:]) / 2
    apart = np.hypot(*np.moveaxis(centre[:, None] - place, 2, 0)) / np.sqrt(area[lost])
    reach = _NEAR + _FARTHER_PER_S * away_s
    factor = area[fresh][:, None] / area[lost]
    possible &= (apart < reach) & (factor < _LARGER) & (factor > 1.0 / _LARGER)
    if features is not None:
        cosine = cosine_similarity(features[fresh], features[lost])
        possible &= ~(cosine < _ALIKE)  # unknown looks speak for nobody and against nobody
    rows, columns = assign(np.where(possible, 1.0 - apart / np.maximum(reach, 1e-9), 0.0), 0.0)
    gone[rows] = lost[columns]
    return gone
