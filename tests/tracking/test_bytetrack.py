"""ByteTrack: weak detections extend tracks and start none."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.messages import Detections
from pipeline.tracking import build_tracker
from tests.tracking.scenes import box, detections, ids


def test_a_weak_detection_extends_a_track_and_starts_none() -> None:
    tracker = build_tracker("bytetrack", high=0.5, activation=0.5)
    for k in range(20):
        score = 0.2 if 5 <= k < 15 else 0.9
        frame = Detections([box(3 * k), box(500)], [score, 0.3], [0, 0])
        found = ids(tracker.update(frame, k / 25))
        assert found == [1 if k else -1, -1]


def test_strong_detections_choose_first() -> None:
    """A weak one that fits better does not take the track of a strong one."""
    tracker = build_tracker("bytetrack", high=0.5, activation=0.5, min_frames=1)
    for k in range(5):
        tracker.update(detections(box(100)), k / 25)
    frame = Detections([box(100), box(104)], [0.3, 0.9], [0, 0])
    assert ids(tracker.update(frame, 0.2)) == [-1, 1]


def test_a_weak_detection_does_not_revive_a_lost_track() -> None:
    tracker = build_tracker("bytetrack", high=0.5, activation=0.5, min_frames=1)
    for k in range(5):
        tracker.update(detections(box(100)), k / 25)
    tracker.update(Detections.empty(), 0.2)
    assert ids(tracker.update(detections(box(100), score=0.3), 0.24)) == [-1]
    assert ids(tracker.update(detections(box(100), score=0.9), 0.28)) == [1]


def test_pedestrians_from_public_detections(assets: Path) -> None:
    """PETS09-S2L1 has 19 people in 795 frames; detections of 2015 give some fragments, not hundreds."""
    rows = np.loadtxt(assets / "mot" / "MOT15-train" / "PETS09-S2L1" / "det" / "det.txt", delimiter=",")
    tracker = build_tracker("bytetrack")
    for number in range(1, 301):
        x, y, w, h, score = rows[rows[:, 0] == number][:, 2:7].T
        boxes = np.stack([x, y, x + w, y + h], axis=1)
        tracker.update(Detections(boxes, np.clip(score, 0, 1), np.zeros(len(x))), number / 7)
    assert 10 <= tracker.next_id - 1 <= 40
