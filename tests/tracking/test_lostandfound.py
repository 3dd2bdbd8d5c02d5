"""Objects that reappear where no prediction overlaps them keep their id, and nobody else gets it."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.messages import Detections
from pipeline.tracking import build_tracker
from pipeline.tracking.base import Hints
from tests.tracking.scenes import BATCHED, Row, box, detections, ids

every_tracker = pytest.mark.parametrize("algorithm", BATCHED)


def reappearing(
    algorithm: str, back: Row, away_s: float = 0.4, class_id: int = 0, lost_and_found: bool = True
) -> int:
    """Id of something that appears after an object of class 0 stood at (100, 0) and went away."""
    tracker = build_tracker(algorithm, lost_s=1.0, lost_and_found=lost_and_found)
    for k in range(10):
        tracker.update(detections(box(100)), k / 25)
    for k in range(3):
        tracker.update(Detections.empty(), (10 + k) / 25)
    for k in range(2):
        frame = detections(back, class_ids=[class_id])
        found = ids(tracker.update(frame, 9 / 25 + away_s + k / 25))
    return found[0]


@every_tracker
@pytest.mark.parametrize(
    ("back", "away_s", "class_id", "kept"),
    [
        pytest.param(box(132), 0.4, 0, True, id="beside its last place"),
        pytest.param(box(132), 1.3, 0, False, id="too late"),
        pytest.param(box(600), 0.4, 0, False, id="too far"),
        pytest.param(box(132), 0.4, 1, False, id="of another class"),
        pytest.param(box(132, 0, 120), 0.4, 0, False, id="three times as large"),
        pytest.param(box(132, 10, 12), 0.4, 0, False, id="a third as large"),
    ],
)
def test_who_gets_the_id_of_a_lost_object(
    algorithm: str, back: Row, away_s: float, class_id: int, kept: bool
) -> None:
    assert reappearing(algorithm, back, away_s, class_id) == (1 if kept else 2)


@every_tracker
def test_switched_off(algorithm: str) -> None:
    assert reappearing(algorithm, box(132), lost_and_found=False) == 2


@every_tracker
def test_two_objects_that_were_visible_together_stay_two(algorithm: str) -> None:
    """The second appears beside the first while that is still seen; then the first goes."""
    tracker = build_tracker(algorithm, min_frames=3)
    seen = []
    for k in range(20):
        rows = [box(100)] if k < 10 else [box(100), box(132)] if k < 11 else [box(132)]
        seen.append(ids(tracker.update(detections(*rows), k / 25)))
    assert seen[10] == [1, -1]
    assert seen[-1] == [2]


@every_tracker
def test_an_id_that_was_given_back_is_held_by_one_object(algorithm: str) -> None:
    """Two appear beside the place of the lost one: one gets its id, and where it was lost nobody keeps it."""
    tracker = build_tracker(algorithm)
    for k in range(10):
        tracker.update(detections(box(100)), k / 25)
    tracker.update(Detections.empty(), 0.4)
    for k in range(3):
        found = ids(tracker.update(detections(box(132), box(66)), 0.8 + k / 25))
    assert sorted(found) == [1, 2]
    assert found.index(1) == 0, "the nearer one"
    found = ids(tracker.update(detections(box(132), box(66), box(100)), 0.92))
    assert sorted(found) == [-1, 1, 2]
    assert tracker.next_id == 3


def test_looks_decide_where_they_are_known() -> None:
    for look, expected in (([1.0, 0.0], 1), ([0.0, 1.0], 2), ([0.0, 0.0], 1)):
        tracker = build_tracker("botsort")
        for k in range(10):
            tracker.update(detections(box(100)), k / 25, Hints(embeddings=np.array([[1, 0]], np.float32)))
        tracker.update(Detections.empty(), 0.4, Hints(embeddings=np.zeros((0, 2), np.float32)))
        for k in range(2):
            hints = Hints(embeddings=np.array([look], np.float32))
            found = ids(tracker.update(detections(box(132)), 0.8 + k / 25, hints))
        assert found == [expected]
