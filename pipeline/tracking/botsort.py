"""BoT-SORT: ByteTrack that knows how the camera moved, and what objects look like if somebody tells it.

Source: Aharon, Orfaig and Bobrovsky, "BoT-SORT: Robust Associations Multi-Pedestrian Tracking", 2022.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.association import cosine_similarity
from pipeline.tracking.base import Hints
from pipeline.tracking.batch import Seen
from pipeline.tracking.bytetrack import ByteTrack
from pipeline.tracking.states import XYWH

__all__ = ["BotSort"]

#: How much of a track's looks stays when a detection is added (alpha in section 3.3).
_MEMORY: Final = 0.9
#: Looks count for pairs of at least this IoU (1 - theta_iou of section 3.3) ...
_CLOSE_IOU: Final = 0.5
#: ... and of at least this cosine (1 - 2 theta_emb, for the distance is halved there).
_ALIKE: Final = 0.5


class BotSort(ByteTrack):
    """BoT-SORT.

    ``Hints.motion`` moves the tracks with the picture; ``Hints.embeddings`` let looks decide where boxes
    alone would be in doubt. Without either it is ByteTrack on width and height, with the IoU times the score
    as similarity. Options: see `ByteTrack`; ``min_iou`` bounds that product.
    """

    state = XYWH

    def _move(self, hints: Hints) -> None:
        if hints.motion is not None and np.isfinite(hints.motion).all():
            self._tracks.filter.transform(hints.motion)

    def _likeness(self, overlap: NDArray[np.float64], seen: Seen) -> NDArray[np.float64]:
        likeness = overlap * seen.scores
        features = self._tracks.columns.get("features")
        if (
            features is not None
            and seen.embeddings is not None
            and _width(features) == _width(seen.embeddings)
        ):
            # The smaller of both distances counts, so the larger likeness.
            cosine = cosine_similarity(features, seen.embeddings)
            alike = (overlap >= _CLOSE_IOU) & (cosine >= _ALIKE)
            np.maximum(likeness, (1.0 + cosine) / 2, out=likeness, where=alike)
        return likeness

    def _after(self, rows: NDArray[np.int64], columns: NDArray[np.int64], seen: Seen) -> None:
        if seen.embeddings is None:
            return
        looks = seen.embeddings[columns].astype(np.float64)
        features = self._tracks.columns.get("features")
        if features is None or _width(features) != _width(looks):
            self._tracks.extend("features", np.zeros(looks.shape[1]))
            features = self._tracks.columns["features"]
        old = features[rows]
        known, before = looks.any(axis=1, keepdims=True), old.any(axis=1, keepdims=True)
        mixed = np.where(before, _MEMORY * old + (1 - _MEMORY) * looks, looks)
        mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
        features[rows] = np.where(known, mixed, old)


def _width(looks: NDArray[Any]) -> int:
    return int(looks.shape[1])
