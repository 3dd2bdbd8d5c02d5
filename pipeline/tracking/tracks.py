"""All tracks of a source as one struct of arrays: birth, confirmation, loss, removal."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.tracking.kalman import BoxFilter, Noise
from pipeline.tracking.states import BoxState

__all__ = ["Tracks"]

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


class Tracks:
    """Arrays with one row for each track; no track is an object of its own.

    Attributes:
        columns: The arrays below by name, and those that an algorithm adds.
        filter: Where the tracks are and how they move.
        ids: int64 (n,), -1 until confirmed.
        class_ids: int32 (n,), class of the last detection.
        hits: int64 (n,), detections so far.
        born_s: float64 (n,), time of the first detection.
        seen_s: float64 (n,), time of the last detection.
        boxes: float64 (n, 4), box xyxy of the last detection.

    Args:
        state: Coordinates that the filter follows.
        noise: Their noise.
    """

    def __init__(self, state: BoxState, noise: Noise) -> None:
        self._state = state
        self.filter = BoxFilter(noise, state.moving)
        self.columns: dict[str, NDArray[Any]] = {
            "ids": np.zeros(0, np.int64),
            "class_ids": np.zeros(0, np.int32),
            "hits": np.zeros(0, np.int64),
            "born_s": np.zeros(0),
            "seen_s": np.zeros(0),
            "boxes": np.zeros((0, 4)),
        }
        self._extra: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return len(self.filter)

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 (n,), -1 until confirmed."""
        return self.columns["ids"]

    @property
    def class_ids(self) -> NDArray[np.int32]:
        """int32 (n,)."""
        return self.columns["class_ids"]

    @property
    def hits(self) -> NDArray[np.int64]:
        """int64 (n,)."""
        return self.columns["hits"]

    @property
    def born_s(self) -> Floats:
        """float64 (n,)."""
        return self.columns["born_s"]

    @property
    def seen_s(self) -> Floats:
        """float64 (n,)."""
        return self.columns["seen_s"]

    @property
    def boxes(self) -> Floats:
        """float64 (n, 4)."""
        return self.columns["boxes"]

    def predict(self, passed_s: float) -> None:
        """Carry all tracks on by so many seconds."""
        if len(self):
            self.filter.predict(passed_s, self._state.units(self.filter.position))

    def predicted(self) -> Floats:
        """Boxes xyxy where the tracks are thought to be now, float64 (n, 4)."""
        return self._state.to_boxes(self.filter.position)

    def units(self, index: Index) -> Floats:
        """What the noise of these tracks is measured in, float64 (m, 4)."""
        return self._state.units(self.filter.position[index])

    def measure(self, index: Index, boxes: Floats) -> None:
        """Tell the filter, and nobody else, that tracks were seen."""
        measured = self._state.of_boxes(boxes)
        self.filter.update(index, measured, self._state.units(measured))

    def extend(self, name: str, row: NDArray[Any]) -> None:
        """Add a column, or replace it, with ``row`` in every track there is and will be."""
        self._extra[name] = row
        self.columns[name] = np.broadcast_to(row, (len(self), *row.shape)).copy()

    def see(self, index: Index, boxes: Floats, class_ids: NDArray[np.int32], now_s: float) -> None:
        """Tracks were seen.

        Args:
            index: int64 (m,), which ones, each once.
            boxes: float64 (m, 4), where.
            class_ids: int32 (m,), as what.
            now_s: When.
        """
        self.measure(index, boxes)
        columns = self.columns
        columns["hits"][index] += 1
        columns["seen_s"][index] = now_s
        columns["boxes"][index] = boxes
        columns["class_ids"][index] = class_ids

    def add(self, boxes: Floats, class_ids: NDArray[np.int32], now_s: float) -> Index:
        """Start tracks.

        Returns:
            int64 (m,), their indices.
        """
        first, count = len(self), len(boxes)
        measured = self._state.of_boxes(boxes)
        self.filter.add(measured, self._state.units(measured))
        born: dict[str, Any] = {
            "ids": np.full(count, -1),
            "class_ids": class_ids,
            "hits": np.ones(count, np.int64),
            "born_s": np.full(count, now_s),
            "seen_s": np.full(count, now_s),
            "boxes": boxes,
        }
        for name, row in self._extra.items():
            born[name] = np.broadcast_to(row, (count, *row.shape))
        for name, column in self.columns.items():
            self.columns[name] = np.concatenate([column, born[name]])
        return np.arange(first, first + count)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Remove the tracks for which ``mask``, bool (n,), is not set."""
        if mask.all():
            return
        self.filter.keep(mask)
        for name, column in self.columns.items():
            self.columns[name] = column[mask]
