"""OC-SORT: directions, last places, gaps gone over again."""

from __future__ import annotations

import numpy as np

from pipeline.messages import Detections
from pipeline.tracking.base import NO_HINTS
from pipeline.tracking.ocsort import OCSort
from tests.tracking.scenes import box, detections, ids


def test_the_direction_decides_between_places_that_fit_alike() -> None:
    """Two objects swap sides: where both boxes fit equally, each goes on the way it went."""
    tracker = OCSort(min_frames=1)
    for k in range(8):
        found = ids(tracker.update(detections(box(4 * k), box(60 - 4 * k, 3)), k / 25))
    assert found == [1, 2]
    rows = np.array([0, 0, 1, 1])
    columns = np.array([0, 1, 0, 1])
    seen = tracker._seen(detections(box(40), box(16, 3)), 8 / 25, NO_HINTS, None)
    gain = tracker._consistency(rows, columns, seen)
    assert gain[0] > 0 > gain[1]
    assert gain[3] > 0 > gain[2]
    assert np.abs(gain).max() <= 0.1


def test_a_track_that_went_astray_is_found_where_it_was_last_seen() -> None:
    """It moves fast, is missed for a few frames, and has turned round: only its last place overlaps."""
    tracker = OCSort(lost_and_found=False)
    for k in range(12):
        tracker.update(detections(box(20 * k)), k / 25)
    for k in range(12, 16):
        tracker.update(Detections.empty(), k / 25)
    assert ids(tracker.update(detections(box(205)), 16 / 25)) == [1]


def test_a_gap_is_gone_over_again() -> None:
    """After a turn behind something the speed is that of the way through the gap, not of before."""
    tracker = OCSort()
    for k in range(15):
        tracker.update(detections(box(2 * k)), k / 25)
    assert tracker._tracks.filter.velocity[0, 0] > 30
    for k in range(15, 25):
        tracker.update(Detections.empty(), k / 25)
    assert ids(tracker.update(detections(box(18)), 25 / 25)) == [1]
    # Without it the filter would think it 7 px farther, at 11 px/s.
    assert tracker._tracks.filter.velocity[0, 0] < 8
    assert abs(tracker._tracks.filter.position[0, 0] - 20 - 18) < 5


def test_weak_detections_are_left_out() -> None:
    tracker = OCSort(high=0.5, activation=0.3)
    for k in range(5):
        frame = Detections([box(0), box(200)], [0.9, 0.4], [0, 0])
        found = ids(tracker.update(frame, k / 25))
    assert found == [1, -1]
