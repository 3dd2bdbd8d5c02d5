"""The columns of all tracks stay in step."""

from __future__ import annotations

import numpy as np

from pipeline.tracking.kalman import Noise
from pipeline.tracking.states import XYWH
from pipeline.tracking.tracks import Tracks


def some(count: int, start: float = 0.0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    corners = np.arange(count)[:, None] * 100.0 + start + np.zeros((1, 2))
    return np.concatenate([corners, corners + 50], axis=1)


def test_birth_sight_and_removal() -> None:
    tracks = Tracks(XYWH, Noise())
    tracks.extend("trail", np.array([7.0, 8.0]))
    assert tracks.add(some(3), np.array([0, 1, 2], np.int32), 1.0).tolist() == [0, 1, 2]
    assert tracks.ids.tolist() == [-1, -1, -1]
    tracks.columns["trail"][1] = 0.0
    tracks.predict(0.5)
    tracks.see(np.array([2, 0]), some(2, 5.0), np.array([5, 6], np.int32), 1.5)
    assert tracks.hits.tolist() == [2, 1, 2]
    assert tracks.class_ids.tolist() == [6, 1, 5]
    assert (tracks.born_s.tolist(), tracks.seen_s.tolist()) == ([1.0] * 3, [1.5, 1.0, 1.5])
    assert tracks.boxes[2].tolist() == [5.0, 5.0, 55.0, 55.0]
    tracks.keep(np.array([False, True, True]))
    assert len(tracks) == 2
    assert {len(column) for column in tracks.columns.values()} == {2}
    assert tracks.columns["trail"].tolist() == [[0.0, 0.0], [7.0, 8.0]]
    assert tracks.add(some(1), np.zeros(1, np.int32), 2.0).tolist() == [2]
    assert tracks.columns["trail"][2].tolist() == [7.0, 8.0]


def test_a_column_may_come_later_and_be_replaced() -> None:
    tracks = Tracks(XYWH, Noise())
    tracks.add(some(2), np.zeros(2, np.int32), 0.0)
    tracks.extend("features", np.zeros(3))
    assert tracks.columns["features"].shape == (2, 3)
    tracks.columns["features"][0] = 1.0  # it is the tracks' own
    tracks.extend("features", np.zeros(5))
    assert tracks.columns["features"].tolist() == [[0.0] * 5] * 2


def test_what_was_measured_and_not_seen_moves_only_the_filter() -> None:
    tracks = Tracks(XYWH, Noise())
    tracks.add(some(1), np.zeros(1, np.int32), 0.0)
    tracks.predict(0.1)
    tracks.measure(np.array([0]), some(1, 20.0))
    assert tracks.predicted()[0, 0] > 5.0
    assert tracks.boxes[0, 0] == 0.0
    assert tracks.hits.tolist() == [1]
